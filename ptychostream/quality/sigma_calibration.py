"""Calibrates the error of a stitched phase: the spread of the patches beside a reference, on an area never trained on.

See `ptychostream.imaging.sigma` for what the factor and the floor mean. They are those of the largest likelihood of the
errors, as if each were Gaussian with its σ. Errors of networks have longer tails than that, so that more than 68 % of
the pixels lie within one σ where 95 % lie within two.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import optimize

from ptychostream.imaging.phase_image import PhaseImage
from ptychostream.imaging.registration import align, on_grid
from ptychostream.imaging.sigma import MIN_NUMBER, sigma
from ptychostream.model.contract import SigmaCalibration

MIN_PIXELS = 500
"""Pixels below which nothing is calibrated, or tested."""
_LEAST = 1e-4  # of factor and floor, for the logarithms of the fit


@dataclass(frozen=True)
class Errors:
    """Pixels with a known error, in one order.

    Attributes
    ----------
    error
        [N] image − reference, radians, after registration. The constant and the linear phase are not compared.
    single, number
        [N] spread of single patches (rad) and effective number of patches.
    half
        [N] int8: 0 or 1 for the two halves of the area, -1 for the pixels between them.
    """

    error: NDArray[np.float64]
    single: NDArray[np.float64]
    number: NDArray[np.float64]
    half: NDArray[np.int8]

    def part(self, half: int) -> Errors:
        """The pixels of one half."""
        chosen = self.half == half
        return Errors(self.error[chosen], self.single[chosen], self.number[chosen], self.half[chosen])

    def within(self, factor: float, floor_rad: float, sigmas: float) -> float:
        """The part of the pixels whose error is at most so many σ; NaN without pixels."""
        if not self.error.size:
            return float("nan")
        return float(np.mean(np.abs(self.error) <= sigmas * sigma(self.single, self.number, factor, floor_rad)))


def errors_of(image: PhaseImage, reference: PhaseImage, area: NDArray[np.bool_], patch_px: int) -> Errors:
    """The errors of `image` on an area.

    Parameters
    ----------
    image
        With its spread.
    reference
        The phase that counts as true.
    area
        [H, W] bool on the reference's grid; training has never seen it.
    patch_px
        Side of a patch, in pixels. The halves are that far apart, so that no patch lies in both.

    Raises
    ------
    GeometryError
        Image and reference do not overlap on the area.
    """
    assert image.spread is not None
    aligned = align(image, reference, area)
    single, number = (
        on_grid(values, image, reference, aligned.shift_px) for values in (image.spread.single, image.spread.number)
    )
    known = aligned.mask & np.isfinite(single) & (number >= MIN_NUMBER)
    places = np.stack(np.nonzero(known)).astype(np.float64)
    along = places[int(np.argmax(np.ptp(places, axis=1)))] if places.size else np.empty(0)
    middle = float(np.median(along)) if along.size else 0.0
    half = np.where(along < middle - patch_px / 2, 0, np.where(along >= middle + patch_px / 2, 1, -1))
    error = (aligned.image - aligned.reference)[known]
    return Errors(error, single[known].astype(np.float64), number[known].astype(np.float64), half.astype(np.int8))


def fit(errors: Errors) -> tuple[float, float]:
    """Factor and floor (rad) of the largest likelihood."""

    def cost(logarithms: NDArray[np.float64]) -> float:
        factor, floor_rad = np.exp(np.clip(logarithms, np.log(_LEAST), 5))
        expected = sigma(errors.single, errors.number, factor, floor_rad)
        return float(np.mean(np.log(expected) + 0.5 * np.square(errors.error / expected)))

    start = [np.log(0.5), np.log(max(float(np.std(errors.error)), _LEAST))]
    found = optimize.minimize(cost, start, method="Nelder-Mead", options={"xatol": 1e-3, "fatol": 1e-6})
    factor, floor_rad = np.exp(np.clip(found.x, np.log(_LEAST), 5))
    return float(factor), float(floor_rad)


def calibrate(areas: Sequence[Errors]) -> SigmaCalibration | None:
    """Factor and floor over all areas, and how well those of one half hold on the other. None: too few pixels."""
    if not areas:
        return None
    whole = Errors(*(np.concatenate([getattr(one, name) for one in areas]) for name in Errors.__dataclass_fields__))
    if whole.error.size < MIN_PIXELS:
        return None
    factor, floor_rad = fit(whole)
    halves = whole.part(0), whole.part(1)
    tested: tuple[float, float] | tuple[None, None] = (None, None)
    if min(half.error.size for half in halves) >= MIN_PIXELS:
        pairs = [(other, fit(one)) for one, other in (halves, halves[::-1])]
        sizes = [other.error.size for other, _ in pairs]
        one, two = (
            float(np.average([other.within(*found, sigmas) for other, found in pairs], weights=sizes))
            for sigmas in (1, 2)
        )
        tested = one, two
    return SigmaCalibration(
        factor=factor,
        floor_rad=floor_rad,
        within_1_sigma=tested[0],
        within_2_sigma=tested[1],
        pixels=int(whole.error.size),
    )
