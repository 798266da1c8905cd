"""`ptychostream bench positions`, small: every frame is placed."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

pytestmark = pytest.mark.slow


def test_a_small_measurement() -> None:
    words = [sys.executable, "-m", "ptychostream", "bench", "positions", "--json", "--samples", "20000"]
    words += ["--frames", "500", "--seconds", "1", "--turns", "1", "--fps", "200", "--sample-rate", "2000"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=200)
    assert done.returncode in (0, 1), done.stdout + done.stderr
    report = json.loads(done.stdout)
    assert report["placed_of_frames"] == {"attributes": 200, "panda": 200}
    assert set(report["join_us"]) == {"stream", "index", "attributes"}
    assert all(value > 0 for one in report["join_us"].values() for value in one.values())
    assert len(report["rss_mb"]) == 3
