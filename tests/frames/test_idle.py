"""One rule for the values that tell whether a scan runs or is over."""

from __future__ import annotations

import math

import numpy as np
import pytest

from ptychostream.frames.idle import ends_scan, is_idle

NO = [None, 0, 0.0, False, math.nan, np.float32("nan").item(), "", " ", "0", "Idle", "NO", "off", "False", "inactive"]
YES = [1, -1, 0.5, True, "true", "yes", "1", "on", "Acquiring"]
DONE = ["Done", "complete ", "Finished"]


@pytest.mark.parametrize("value", NO)
def test_values_that_say_no(value: object) -> None:
    assert is_idle(value)
    assert not ends_scan(value)


@pytest.mark.parametrize("value", YES)
def test_values_that_say_yes(value: object) -> None:
    assert not is_idle(value)
    assert ends_scan(value)


@pytest.mark.parametrize("value", DONE)
def test_a_scan_that_is_done_does_not_run_and_has_ended(value: object) -> None:
    assert is_idle(value)
    assert ends_scan(value)
