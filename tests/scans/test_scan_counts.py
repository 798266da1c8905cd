"""Counts that a file holds as floats."""

from __future__ import annotations

import numpy as np
import pytest

from ptychostream.errors import ScanFileError
from ptychostream.frames.measured_pixels import find_marks, highest_count
from ptychostream.scans.scan_counts import LazyCounts

MARK = np.iinfo(np.uint32).max


@pytest.mark.parametrize("mark", [np.nan, np.inf, -1.0, -2.0, float(2**32)])
@pytest.mark.parametrize("kind", ["float32", "float64"])
def test_marks_of_bad_pixels_stay_marks(mark: float, kind: str) -> None:
    stored = np.random.default_rng(0).poisson(50, (6, 8, 8)).astype(kind)
    stored[:, 2, 3] = mark
    counts = LazyCounts(stored, "here")[:]
    assert (counts[:, 2, 3] == MARK).all()
    good = np.ones((8, 8), bool)
    good[2, 3] = False
    np.testing.assert_array_equal(counts[:, good], stored[:, good])
    assert np.argwhere(find_marks(counts, highest_count(counts.dtype)).pixels).tolist() == [[2, 3]]


@pytest.mark.parametrize("value", [0.5, -0.5, 1e12])
def test_what_is_no_count_is_refused(value: float) -> None:
    stored = np.ones((2, 4, 4))
    stored[1, 1, 1] = value
    with pytest.raises(ScanFileError, match="is not a count"):
        LazyCounts(stored, "here")[:]
