"""Which pixels of a frame are a measurement. Every door (edge, infer, reconstruct, train, agent) asks these functions.

A value is no count if it is negative (areaDetector and DECTRIS mark gaps with −1 and dead pixels with −2 in signed
types), if it is the type's maximum (32 bits and more: also the one below, which no detector counts to), or if it is
at the saturation level or above it. A place is no measurement if the mask says so, or if its value stands huge and
constant: photons fluctuate, a mark does not. Pure functions and one passive class.
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
"""A mark is at least as high as this quantile of the lowest values of fluctuating pixels."""
_CHANCE = 1e-3
"""Expected number of true pixels that are taken for marks, for photon noise."""
_BITS = (8, 10, 12, 14, 16, 18, 20, 24, 28, 31, 32, 48, 63, 64)
_EDGES = np.array(sorted({2**bits - less for bits in _BITS for less in (1, 2)}), np.uint64)
"""What read-outs of these depths use as marks; believed without any repetition where it towers over everything."""
_TOWERS = 4
_LEAD = 0.6
"""Of the frames by which the votes for a mark's value exceed those for others: it holds in 80 %."""
_NEAR_TOP = 0.9
_LEAST_SATURATION, _LEAST_SHARED = 64, 4


def highest_count(
    dtype: DTypeLike,
    *,
    saturation: int | None = None,
    bit_depth: int | None = None,
    maximum_is_mark: bool = True,
) -> int:
    """The largest value of a type that is a count and not a mark.

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
    highest = 2**63 if kind.kind == "f" else int(np.iinfo(kind).max)
    if maximum_is_mark and kind.kind != "f":
        highest -= 2 if kind.itemsize >= 4 else 1
    if bit_depth is not None:
        highest = min(highest, 2**bit_depth - 2)
    if saturation is not None:
        highest = min(highest, saturation - 1)
    return max(0, highest)


def is_count(values: NDArray[np.integer[Any]], highest: int) -> NDArray[np.bool_]:
    """Where `values` are counts: neither negative nor above `highest`, nor NaN."""
    if values.dtype.kind != "f":
        highest = min(highest, int(np.iinfo(values.dtype).max))
    counted: NDArray[np.bool_] = (values >= 0) & (values <= values.dtype.type(highest))
    return counted


@dataclass(frozen=True)
class Marks:
    """Pixels whose value stands constant in every frame, and is no count, or too high for one.

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


_MOST_BELOW = 0.01


class Constants:
    """The value that each pixel has in most frames of one shape and type, by the majority vote of Boyer and Moore.

    A few glitches do not hide a mark: the value must hold in four of five frames. Frames whose pixels are all alike,
    such as an empty one, are passed over.
    """

    def __init__(self) -> None:
        self.frames = 0
        self._value: NDArray[np.integer[Any]] = np.empty(0, np.int64)
        self._lead: NDArray[np.int32] = np.empty(0, np.int32)
        self._low: NDArray[np.integer[Any]] = np.empty(0, np.int64)

    def add(self, frames: NDArray[np.integer[Any]]) -> None:
        """Add frames [n, H, W]."""
        for frame in frames:
            if frame.min() == frame.max():
                continue
            if not self.frames:
                self._value, self._low, self._lead = frame.copy(), frame.copy(), np.zeros(frame.shape, np.int32)
            open_ = self._lead == 0
            self._value[open_] = frame[open_]
            self._lead += np.where(frame == self._value, 1, -1).astype(np.int32)
            np.minimum(self._low, frame, out=self._low)
            self.frames += 1

    def marks(self, highest: int, bad: NDArray[np.bool_] | None = None) -> Marks | None:
        """The marks, or None where there was no frame.

        A pixel is a mark if its constant value is no count. It is one too if the value is at least as high as nearly
        every fluctuating pixel, and photon noise would not leave it constant by chance: the probability that Poisson
        counts of mean v give one value in m of n frames is less than e^(n/2) (2√(πv))⁻ᵐ⁺¹. Frames that are one and the
        same picture do not tell this.

        Parameters
        ----------
        highest
            See `highest_count`.
        bad
            [H, W] pixels that are known to be bad.
        """
        if not self.frames:
            return None
        value = self._value
        good = np.ones(value.shape, np.bool_) if bad is None or bad.shape != value.shape else ~bad
        still = good & (self._lead >= _LEAD * self.frames)
        counted = good & is_count(value, highest)
        marks = still & ~counted
        if self.frames < 3:
            marks |= _towering(value, counted, self._lead == self.frames)
        else:
            marks |= self._improbable(counted & still, counted & ~still)
        return Marks(marks, _values(value[marks]))

    def _improbable(self, still: NDArray[np.bool_], moving: NDArray[np.bool_]) -> NDArray[np.bool_]:
        value = self._value
        lit = still & (value > 0)
        if 2 * int(moving.sum()) < int(lit.sum()) or not moving.any():
            return np.zeros_like(lit)
        huge = lit & (value >= np.quantile(self._low[moving].astype(np.float64), HUGE_QUANTILE))
        number = int(huge.sum())
        if number:
            agreeing = (self._lead[huge] + self.frames) / 2
            unlikely = (agreeing - 1) * np.log(2 * np.sqrt(np.pi * value[huge].astype(np.float64)))
            glitches = np.where(agreeing < self.frames, self.frames / 2, 0.0)
            huge[huge] = unlikely - glitches > math.log(number / _CHANCE)
        return huge


def _towering(
    value: NDArray[np.integer[Any]], counted: NDArray[np.bool_], constant: NDArray[np.bool_]
) -> NDArray[np.bool_]:
    """What one or two frames show: values that read-outs use as marks, several times as high as all other pixels."""
    edge = counted & constant
    edge[edge] = np.isin(value[edge].astype(np.uint64), _EDGES)
    rest = counted & ~edge
    if not edge.any() or not rest.any():
        return np.zeros_like(edge)
    edge &= value > _TOWERS * max(int(value[rest].max()), 1)
    return edge


def _values(values: NDArray[np.integer[Any]]) -> tuple[int, ...]:
    found, numbers = np.unique(values, return_counts=True)
    return tuple(int(value) for value in found[np.argsort(-numbers, kind="stable")])


def find_marks(frames: NDArray[np.integer[Any]], highest: int, bad: NDArray[np.bool_] | None = None) -> Marks:
    """The marks in frames [n, H, W] (see `Constants.marks`)."""
    constants = Constants()
    constants.add(frames)
    return constants.marks(highest, bad) or Marks(np.zeros(frames.shape[1:], np.bool_), ())


def subtracted_fault(below: NDArray[np.integer[Any]], frames: int, bad: NDArray[np.bool_]) -> str:
    """What values below 0 say of a background that was subtracted; empty: nothing.

    Marks stay at their pixels. Of the noise about a background that was subtracted, half lies below 0, at pixels that
    count in other frames; if it were left out as marks are, the rest would count too high.

    Parameters
    ----------
    below
        [H, W] in how many of `frames` frames the value is below 0.
    bad
        [H, W] pixels that the mask calls bad, and marks.
    """
    share = float(below[~bad].sum()) / (frames * below.size)
    if share <= _MOST_BELOW:
        return ""
    return (
        f"{share:.1%} of the values are below 0, at pixels that count in other frames: they are no marks of bad "
        "pixels; a background was subtracted"
    )


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
