"""The dose scale that brings a scan to the counts that a network was trained at: one rule, for edge and agent.

The median, not the mean: a shutter that opened late, or a frame of nothing but a Bragg peak, must not set the scale of
the whole scan. Pure.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np

FRAMES = 16
"""So many frames with counts decide, the first of a scan; later ones change nothing."""
LIMITS = (1e-4, 1e5)
"""Of the scale, as of the record DoseScale."""


def telling(sums: Iterable[float]) -> list[float]:
    """Those of `sums`, counts summed over a frame, that say something of the dose: frames without counts do not."""
    return [value for value in sums if math.isfinite(value) and value > 0]


def choose_scale(sums: Sequence[float], trained: float | None, limits: tuple[float, float] = LIMITS) -> float | None:
    """Dose scale of a scan for a network; None where none can be chosen.

    Parameters
    ----------
    sums
        Preprocessed counts of its first frames, each summed over the frame, as `telling` gives them.
    trained
        Mean counts of a frame, summed over the frame, that the network was trained at; None: not known.
    limits
        Of the scale.
    """
    if not sums or trained is None or not trained > 0:
        return None
    low, high = limits
    return min(max(trained / float(np.median(sums)), low), high)
