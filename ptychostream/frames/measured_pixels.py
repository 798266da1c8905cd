"""Which pixels of a frame are a measurement. Every door (edge, infer, reconstruct, train, agent) asks these functions.

A value is no count if it is negative (areaDetector and DECTRIS mark gaps with −1 and dead pixels with −2 in signed
types), if it is the type's maximum (32 bits and more: also the one below, which no detector counts to), or if it is
at the saturation level or above it. A place is no measurement if the mask says so, or if its value stands huge and
constant in every frame: photons fluctuate, a mark does not. Pure functions and one passive class.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

MOST_BAD = 0.5
"""A mask that calls a larger part of the pixels, or of the counts, bad is refused."""
HUGE_QUANTILE = 0.99
"""A mark is at least as high as this quantile of what the fluctuating pixels reach."""
_CHANCE = 1e-3
"""Expected number of true pixels that are taken for marks, for photon noise."""
_BITS = (8, 10, 12, 14, 16, 18, 20, 24, 28, 31, 32, 48, 63, 64)
_EDGES = np.array(sorted({2**bits - less for bits in _BITS for less in (1, 2)}), np.uint64)
"""What read-outs of these depths use as marks; believed without any repetition where it towers over everything."""
_TOWERS = 4
_NEAR_TOP = 0.9
_LEAST_SATURATION, _LEAST_SHARED = 64, 4


def highest_count(
    dtype: DTypeLike,
    *,
    saturation: int | None = None,
    bit_depth: int | None = None,
    maximum_is_mark: bool = True,
) -> int:
    """The largest value of an integer type that is a count and not a mark.

    Parameters
    ----------
    saturation
        Count at which a pixel is saturated.
    bit_depth
        Bits that the detector counts in, if fewer than the type has: the largest value is saturated.
    maximum_is_mark
        Whether the type's maximum is a mark.
    """
    kind = np.dtype(dtype)
    highest = int(np.iinfo(kind).max)
    if maximum_is_mark:
        highest -= 2 if kind.itemsize >= 4 else 1
    if bit_depth is not None:
        highest = min(highest, 2**bit_depth - 2)
    if saturation is not None:
        highest = min(highest, saturation - 1)
    return max(0, highest)


def is_count(values: NDArray[np.integer[Any]], highest: int) -> NDArray[np.bool_]:
    """Where `values` are counts: neither negative nor above `highest`."""
    counted: NDArray[np.bool_] = (values >= 0) & (values <= values.dtype.type(min(highest, np.iinfo(values.dtype).max)))
    return counted


@dataclass(frozen=True)
class Marks:
    """Pixels whose value stands huge and constant in every frame.

    Attributes
    ----------
    pixels
        [H, W] True at a mark.
    values
        Their values, the most frequent first.
    """

    pixels: NDArray[np.bool_]
    values: tuple[int, ...]

    @property
    def number(self) -> int:
        return int(self.pixels.sum())


class Extremes:
    """The lowest and highest value of each pixel over some frames of one shape and type."""

    def __init__(self) -> None:
        self.frames = 0
        self._low: NDArray[np.integer[Any]] | None = None
        self._high: NDArray[np.integer[Any]] | None = None

    def add(self, frames: NDArray[np.integer[Any]]) -> None:
        """Add frames [n, H, W]."""
        low, high = frames.min(axis=0), frames.max(axis=0)
        if self._low is None or self._high is None:
            self._low, self._high = low, high
        else:
            np.minimum(self._low, low, out=self._low)
            np.maximum(self._high, high, out=self._high)
        self.frames += len(frames)

    def marks(self, highest: int, bad: NDArray[np.bool_] | None = None) -> Marks | None:
        """The marks, or None where the frames do not tell: they are too few, or are one and the same picture.

        A pixel is a mark if it is constant, is at least as high as nearly every fluctuating pixel, and photon noise
        would not leave it constant by chance: the probability that Poisson counts of mean v give one value n times is
        about (2√(πv))⁻ⁿ⁺¹.

        Parameters
        ----------
        highest
            See `highest_count`.
        bad
            [H, W] pixels that are known to be bad.
        """
        low, high = self._low, self._high
        if low is None or high is None:
            return None
        counted = is_count(low, highest) & is_count(high, highest)
        if bad is not None and bad.shape == counted.shape:
            counted &= ~bad
        if self.frames < 3:
            return _towering(low, high, counted)
        still, moving = counted & (low == high), counted & (low != high)
        lit = still & (high > 0)
        if 2 * int(moving.sum()) < int(lit.sum()) or not moving.any():
            return None
        floor = np.quantile(high[moving].astype(np.float64), HUGE_QUANTILE)
        huge = lit & (high >= floor)
        number = int(huge.sum())
        if number:
            doubled = np.log(2 * np.sqrt(np.pi * high[huge].astype(np.float64)))
            huge[huge] = (self.frames - 1) * doubled > math.log(number / _CHANCE)
        return Marks(huge, _values(high[huge]))


def _towering(
    low: NDArray[np.integer[Any]], high: NDArray[np.integer[Any]], counted: NDArray[np.bool_]
) -> Marks | None:
    """What one or two frames show: values that read-outs use as marks, several times as high as all other pixels."""
    edge = counted & (low == high) & np.isin(np.where(high < 0, 0, high).astype(np.uint64), _EDGES)
    rest = counted & ~edge
    if not edge.any() or not rest.any():
        return None
    edge &= high > _TOWERS * max(int(high[rest].max()), 1)
    return Marks(edge, _values(high[edge]))


def _values(values: NDArray[np.integer[Any]]) -> tuple[int, ...]:
    found, numbers = np.unique(values, return_counts=True)
    return tuple(int(value) for value in found[np.argsort(-numbers, kind="stable")])


def find_marks(frames: NDArray[np.integer[Any]], highest: int, bad: NDArray[np.bool_] | None = None) -> Marks:
    """The marks in frames [n, H, W] (see `Extremes.marks`); none where the frames do not tell."""
    extremes = Extremes()
    if len(frames):
        extremes.add(frames)
    return extremes.marks(highest, bad) or Marks(np.zeros(frames.shape[1:], np.bool_), ())


def proposed_saturation(frames: NDArray[np.integer[Any]], good: NDArray[np.bool_]) -> int | None:
    """The largest count, if so many values share it that the detector cannot have counted further; else None.

    Parameters
    ----------
    frames
        [n, H, W].
    good
        [n, H, W] or [H, W], where they are counts.
    """
    values = frames[np.broadcast_to(good, frames.shape)]
    top = int(values.max(initial=0))
    if top < _LEAST_SATURATION:
        return None
    shared = int((values == top).sum())
    near = int((values >= math.ceil(_NEAR_TOP * top)).sum()) - shared
    return top if shared >= _LEAST_SHARED and shared > near else None


def mask_fault(bad: NDArray[np.bool_], mean: NDArray[np.floating] | None = None) -> str:
    """What is wrong with a mask of bad pixels [H, W] as a whole; empty: nothing.

    Parameters
    ----------
    mean
        [H, W] mean counts. Single bright pixels, which a mask is right to call bad, do not count: the mean pattern is
        median-filtered.
    """
    share = float(bad.mean()) if bad.size else 0.0
    if share > MOST_BAD:
        return f"the mask calls {share:.0%} of the pixels bad"
    if mean is None or not bad.any():
        return ""
    from scipy import ndimage  # not at the start of a process that only counts

    smooth = ndimage.median_filter(mean, 3)
    total = float(smooth.sum())
    share = float(smooth[bad].sum()) / total if total > 0 else 0.0
    return f"the mask calls the pixels with {share:.0%} of the counts bad" if share > MOST_BAD else ""


INVERTED = (
    "the mask is probably inverted (1 = good), or a flag of it means no defect: write 1 for bad pixels and 0 for good "
    "ones"
)
"""What the user can do about such a mask."""
