"""Which frames are a measurement. Every door (edge, infer, reconstruct, train, agent) asks these functions.

All frames of a scan have one exposure, and a sample takes light away, so the counts of a frame, summed over its good
pixels, lie around the median of the scan. A frame far below it is dark (the shutter, the beam, or every pixel at a
mark); a frame far above it is no diffraction pattern either (a glitch of the read-out, a flash). The network's answer
to either is not an image of the sample.

Dark is below 1/20 of the median: less than 5 % transmission. Bright is above 10 times the median: no sample
strengthens the beam, and the median frame would have to absorb 90 % of it. Where the sums of a scan differ by nature,
as in Bragg geometry, both limits give way to 6 robust standard deviations (1.4826 · MAD) of their logarithm, but never
beyond a factor of 1000. Where the dose is known, a frame of less than 1/1000 of it is dark at once. Pure functions.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from enum import Enum
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

DARK_SHARE = 0.05
BRIGHT_FACTOR = 10.0
ENOUGH = 4
"""Frames with counts that a median needs; before, only a frame without counts is known to be none."""
_DEVIATIONS = 6.0
_WIDEST = 1000.0


class FrameFault(Enum):
    """Why a frame is no measurement."""

    DARK = "dark"
    BRIGHT = "too bright"


class FrameLimits(NamedTuple):
    """The lowest and the highest sum of counts of a frame that is a measurement, and the median that they follow from.

    `median` is NaN where too few frames have been seen.
    """

    low: float
    high: float
    median: float

    def fault(self, total: float) -> FrameFault | None:
        """Why a frame with this sum is no measurement; None: it is one."""
        if not (total > 0 and total >= self.low):
            return FrameFault.DARK
        return FrameFault.BRIGHT if total > self.high else None

    def measured(self, totals: NDArray[np.floating]) -> NDArray[np.bool_]:
        """[n] bool: frames that are a measurement, by their sums."""
        inside: NDArray[np.bool_] = (totals > 0) & (totals >= self.low) & (totals <= self.high)
        return inside

    def _usual(self) -> str:
        if math.isfinite(self.median):
            return f"the usual are {self.median:.3g}, the least {self.low:.3g}"
        return f"the least are {self.low:.3g} by the dose that the model was trained at"

    def describe(self, total: float) -> str:
        """Why a frame with this sum is no measurement, in words."""
        kind = self.fault(total)
        what = "no counts" if not total > 0 else f"{total:.3g} counts, {self._usual()}"
        return f"a frame is {kind.value if kind else 'good'}: {what}"


def frame_limits(
    totals: Sequence[float] | NDArray[np.floating],
    expected: float | None = None,
    dark_share: float = DARK_SHARE,
    bright_factor: float = BRIGHT_FACTOR,
) -> FrameLimits:
    """The limits that follow from the sums of some frames of a scan.

    Parameters
    ----------
    totals
        Sums of the counts of frames over their good pixels.
    expected
        Counts of a frame that are known otherwise: the dose that a model was trained at. None: not known.
    dark_share
        Part of the median below which a frame is dark; 0: only a frame without counts is.
    bright_factor
        Times the median above which a frame is too bright; 0: none is.
    """
    floor = expected / _WIDEST if expected and dark_share > 0 else 0.0
    sums = np.asarray(totals, np.float64)
    sums = sums[np.isfinite(sums) & (sums > floor)]
    if len(sums) < ENOUGH:
        return FrameLimits(floor, math.inf, math.nan)
    logs = np.log(sums)
    middle = float(np.median(logs))
    spread = _DEVIATIONS * 1.4826 * float(np.median(np.abs(logs - middle)))
    spread = math.exp(min(spread, math.log(_WIDEST)))
    median = math.exp(middle)
    low = median * min(dark_share, 1 / spread) if dark_share > 0 else 0.0
    high = median * max(bright_factor, spread) if bright_factor > 0 else math.inf
    return FrameLimits(max(low, floor), high, median)
