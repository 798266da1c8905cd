"""Pixels as 16-bit numbers, on a scale that stays while the image grows, so that unchanged pixels keep their number.

A pixel's value is offset + step × code. Code 65535 marks a pixel without a measurement.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

NOTHING = 65535
"""The code of a pixel without a value."""
TOP = 65534
"""The largest code of a value."""
_MARGIN = 0.25
"""A new scale leaves this part of the range free on each side."""
_LARGEST = 1e150
"""A value beyond this is none: differences of such values overflow."""
_PLAIN = (1e-30, 1e30)
"""Steps between these are safe in float32."""
_WIDE = 16.0
"""A scale that is this many times wider than the image's range is replaced."""


class Levels(NamedTuple):
    """The scale of an image: value = offset + step × code."""

    offset: float
    step: float

    @property
    def high(self) -> float:
        """The largest value that has a code."""
        return self.offset + TOP * self.step


def levels_for(low: float, high: float, whole: bool, before: Levels | None) -> Levels:
    """A scale for values from `low` to `high`: the one before if it serves.

    Parameters
    ----------
    whole
        Whether the pixels are integers. They keep their exact value if the range allows it.
    before
        The scale of the channel's last image.
    """
    if whole and high - low <= TOP:
        offset = 0.0 if low >= 0 and high <= TOP else float(low)
        return before if before is not None and _exact(before, low, high) else Levels(offset, 1.0)
    span = high - low
    inside = before is not None and before.offset <= low and high <= before.high
    if before is not None and inside and (span == 0 or before.step * TOP <= _WIDE * span):
        return before
    span = span or max(abs(low), 1.0) * 1e-3
    return Levels(low - _MARGIN * span, (1 + 2 * _MARGIN) * span / TOP)


def _exact(before: Levels, low: float, high: float) -> bool:
    return before.step == 1.0 and before.offset <= low and high <= before.high


def codes_of(
    array: NDArray[Any], fill: float | None, before: Levels | None
) -> tuple[NDArray[np.uint16], Levels, tuple[float, float]]:
    """Codes [H, W] of an image, their scale, and the smallest and largest value (0 and 0 without a value).

    Parameters
    ----------
    array
        [H, W] of an integer or float type. Values that are not finite, or beyond 1e150, get no code.
    fill
        The value of pixels without a measurement, or None.
    before
        The scale of the channel's last image.
    """
    whole = array.dtype.kind in "iub"
    with np.errstate(over="ignore"):
        missing = np.zeros(array.shape, np.bool_) if whole else ~(np.abs(array) < array.dtype.type(_LARGEST))
    if fill is not None:
        missing |= array == (array.dtype.type(fill) if not whole else fill)
    held = array[~missing]
    if not held.size:
        return np.full(array.shape, NOTHING, np.uint16), before or Levels(0.0, 1.0), (0.0, 0.0)
    low, high = float(held.min()), float(held.max())
    levels = levels_for(low, high, whole, before)
    plain = not whole and array.dtype.itemsize <= 4 and _PLAIN[0] < levels.step < _PLAIN[1]
    kind = np.float32 if plain else np.float64
    values: NDArray[Any] = array.astype(kind)
    with np.errstate(invalid="ignore", over="ignore"):
        scaled = (values - levels.offset) * (1.0 / levels.step) + 0.5
    codes = np.where(missing, NOTHING, np.clip(scaled, 0, TOP)).astype(np.uint16)
    return codes, levels, (low, high)
