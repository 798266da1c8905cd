"""The dose scale: it scales the counts of a scan to the counts that a network was trained at. Edge and agent use it.

It is based on the median, not the mean: a shutter that opened late or a single strong Bragg peak must not decide the
scale of the whole scan. Pure functions.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np

FRAMES = 16
"""The number of frames with counts, the first of a scan, that decide. Later frames change nothing."""
LIMITS = (1e-4, 1e5)
"""Limits of the scale, the same as those of the record DoseScale."""


def telling(sums: Iterable[float]) -> list[float]:
    """Those of `sums` (counts summed over a frame) that are above 0. A frame without counts does not show the dose."""
    return [value for value in sums if math.isfinite(value) and value > 0]


def choose_scale(sums: Sequence[float], trained: float | None, limits: tuple[float, float] = LIMITS) -> float | None:
    """The dose scale of a scan for a network, or None if it cannot be chosen.

    Parameters
    ----------
    sums
        Preprocessed counts of the scan's first frames, summed over each frame, as `telling` returns them.
    trained
        Mean counts per frame that the network was trained at. None: not known.
    limits
        Lowest and highest scale.
    """
    if not sums or trained is None or not trained > 0:
        return None
    low, high = limits
    return min(max(trained / float(np.median(sums)), low), high)
