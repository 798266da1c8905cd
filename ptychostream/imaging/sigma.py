"""The error of a stitched phase, from the spread of the patches on each pixel.

The error of patch i on a pixel is b + ε_i. ε_i differs from patch to patch, with the standard deviation τ. b is what
all patches of one network have in common: they were inferred by the same weights from patterns that overlap, so they
err in the same way. The weighted mean of n patches errs by

    σ² = var(b) + τ² / n.

The spread of single patches, s, estimates τ (`ptychostream.imaging.phase_image.Spread`), and it says nothing about b.
So neither s nor s / √n is the error of the image. b must be measured on an area whose phase is known. It is described
by a part that goes with the spread and one that does not, var(b) = (factor · s)² + floor²:

    σ² = s² / n + (factor · s)² + floor².

Where var(b) goes with the spread alone, two patches' errors have the correlation factor² / (1 + factor²). The canvas
adds patches as they are. Where a network gives each patch a constant of its own, that constant is a part of ε_i.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from ptychostream.imaging.phase_image import Spread

MIN_NUMBER = 2.0
"""Effective number of patches below which the spread is too uncertain."""
CALIBRATED = "calibrated"
SPREAD_ONLY = "spread, not calibrated"
OFF = "off"


@dataclass(frozen=True)
class PhaseSigma:
    """The error of a phase image, pixel by pixel.

    Attributes
    ----------
    values
        [H, W] float32, radians. NaN where it is not known: fewer than two patches cover the pixel.
    kind
        `CALIBRATED`: a standard deviation. `SPREAD_ONLY`: how far single patches differ, because the model was never
        calibrated; it is no error of the image.
    factor, floor_rad
        Of the calibration; 0 without one.
    """

    values: NDArray[np.float32]
    kind: str
    factor: float = 0.0
    floor_rad: float = 0.0

    @cached_property
    def median(self) -> float:
        """Median of the pixels where it is known, radians; NaN where there is none."""
        known = self.values[np.isfinite(self.values)]
        return float(np.median(known)) if known.size else float("nan")


def sigma_kind(calibration: tuple[float, float] | None) -> str:
    """The kind of a `PhaseSigma` with this calibration."""
    return SPREAD_ONLY if calibration is None else CALIBRATED


def sigma(
    single: NDArray[np.floating], number: NDArray[np.floating], factor: float, floor_rad: float
) -> NDArray[np.floating]:
    """σ = √(s² / n + (factor · s)² + floor²), radians; `single` is s, `number` is n."""
    return np.sqrt(np.square(single) * (1.0 / number + factor**2) + floor_rad**2)


def phase_sigma(spread: Spread, calibration: tuple[float, float] | None) -> PhaseSigma:
    """The error of the image that the spread belongs to.

    Parameters
    ----------
    spread
        Of the patches.
    calibration
        Factor and floor (rad) of the model that made them. None: the spread itself is given.
    """
    known = np.isfinite(spread.single) & (spread.number >= MIN_NUMBER)
    values = np.full(spread.single.shape, np.nan, np.float32)
    if calibration is None:
        values[known] = spread.single[known]
        return PhaseSigma(values, sigma_kind(calibration))
    values[known] = sigma(spread.single[known], spread.number[known], *calibration)
    return PhaseSigma(values, sigma_kind(calibration), *calibration)
