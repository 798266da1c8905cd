"""What a curve of accuracy by overlap says: where it falls below a level, and what that gains. Pure functions."""

from __future__ import annotations

import itertools
from collections.abc import Sequence


def least_overlap(overlaps: Sequence[float], values: Sequence[float], level: float) -> float | None:
    """The smallest overlap down to which a curve stays at or above a level, linearly interpolated; None: it never does.

    Parameters
    ----------
    overlaps, values
        The curve, in any order.
    """
    curve = sorted(zip(overlaps, values, strict=True), reverse=True)
    if curve[0][1] < level:
        return None
    for (above, high), (below, low) in itertools.pairwise(curve):
        if low < level:
            return below + (above - below) * (level - low) / (high - low)
    return curve[-1][0]


def area_factor(overlap: float | None, reference: float | None) -> float | None:
    """How many times the area that a scan of `overlap` covers with the frames of one of `reference`; None: unknown.

    With 1 − step/beam as the overlap, steps are in proportion to 1 − overlap, and areas to its square. At the same
    exposure the photons on an area fall by the same factor.
    """
    if overlap is None or reference is None:
        return None
    return ((1 - overlap) / (1 - reference)) ** 2
