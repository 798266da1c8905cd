"""For the tests of the steps: a work folder."""

from __future__ import annotations

from pathlib import Path

import pytest
from step_helpers import with_scan


@pytest.fixture
def work(tmp_path: Path) -> Path:
    return with_scan(tmp_path)
