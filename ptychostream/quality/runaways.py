"""Pixels of a reference that ran away: single values far beyond all others must not set the range of a measure."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

MOST = 4
"""Pixels that may hang together; a feature of the sample is larger at a resolution of one or two pixels."""
_SHARE = 0.002
_LEAST = 3
_BEYOND = 0.5


def runaways(values: NDArray[np.floating], mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """[H, W] True at pixels of `mask` that ran away.

    Without the outermost 0.2 % of the values (at least three) at each end, the rest has a span. A pixel beyond it by
    more than half of that span ran away, if no more than four such pixels hang together.
    """
    inside = np.sort(values[mask])
    cut = max(_LEAST, math.ceil(_SHARE * inside.size))
    none = np.zeros(mask.shape, np.bool_)
    if inside.size <= 2 * cut + 1:
        return none
    low, high = inside[cut], inside[-1 - cut]
    reach = _BEYOND * (high - low)
    beyond = mask & ((values > high + reach) | (values < low - reach))
    if not beyond.any():
        return none
    labels, _ = ndimage.label(beyond, np.ones((3, 3)))
    small = np.bincount(labels.ravel()) <= MOST
    small[0] = False
    found: NDArray[np.bool_] = small[labels]
    return found
