"""Resolution by Fourier ring correlation: two images of the same object, made from separate frames.

The correlation of a ring of spatial frequencies is Σ F₁ F₂* / √(Σ|F₁|² Σ|F₂|²). The resolution is half the period at
which it first falls below the half-bit curve of van Heel & Schatz, J. Struct. Biol. 151, 250 (2005), eq. 17.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from ptychostream.errors import GeometryError
from ptychostream.imaging.phase_image import PhaseImage
from ptychostream.imaging.registration import align

_LEAST_SIDE = 24
"""Pixels of the compared square; a smaller one has too few rings."""


@dataclass(frozen=True)
class RingCorrelation:
    """The correlation of two images.

    Attributes
    ----------
    frequency
        [rings] cycles per metre, up to 1 / (2 pixels).
    correlation, threshold
        [rings] correlation of each ring, and the half-bit curve.
    resolution_m
        1 / (2 · frequency) of the first ring below the threshold: the width of a line that is resolved. The pixel size
        where no ring is below it.
    at_limit
        Whether no ring is below it, so that the resolution is at least as good as a pixel.
    """

    frequency: NDArray[np.float64]
    correlation: NDArray[np.float64]
    threshold: NDArray[np.float64]
    resolution_m: float
    at_limit: bool


def ring_correlation(first: PhaseImage, second: PhaseImage) -> RingCorrelation:
    """The Fourier ring correlation of two phase images on the largest square in which both are measured.

    The images are registered before (see `ptychostream.imaging.registration.align`), and the square is multiplied by
    a Hann window, so that its edges do not correlate.

    Raises
    ------
    GeometryError
        The images do not overlap, or only in a square of fewer than 24 pixels.
    """
    aligned = align(first, second)
    rows, columns = _largest_square(aligned.mask)
    side = rows.stop - rows.start
    if side < _LEAST_SIDE:
        raise GeometryError(
            f"both images are measured in a square of {side} × {side} pixels only",
            where="Fourier ring correlation",
            remedy=f"scan an area that holds {_LEAST_SIDE} × {_LEAST_SIDE} pixels",
        )
    window = np.outer(np.hanning(side), np.hanning(side))
    a, b = (
        np.fft.fft2((part - np.average(part, weights=window)) * window)
        for part in (aligned.image[rows, columns], aligned.reference[rows, columns])
    )
    radius = np.hypot(*np.meshgrid(np.fft.fftfreq(side, 1 / side), np.fft.fftfreq(side, 1 / side), indexing="ij"))
    rings = np.arange(1, side // 2 + 1)
    label = np.rint(radius).astype(int)
    cross, power_a, power_b, number = (
        ndimage.sum_labels(values, label, rings)
        for values in ((a * b.conj()).real, np.abs(a) ** 2, np.abs(b) ** 2, np.ones(a.shape))
    )
    correlation = cross / np.sqrt(np.maximum(power_a * power_b, np.finfo(float).tiny))
    root = np.sqrt(number)
    threshold = (0.2071 + 1.9102 / root) / (1.2071 + 0.9102 / root)
    frequency = rings / (side * second.pixel_m)
    below = np.flatnonzero(correlation < threshold)
    limit = bool(below.size == 0)
    resolution = second.pixel_m if limit else 0.5 / float(_crossing(frequency, correlation - threshold, int(below[0])))
    return RingCorrelation(frequency, correlation, threshold, resolution, limit)


def _crossing(frequency: NDArray[np.float64], above: NDArray[np.float64], ring: int) -> float:
    """Where the correlation meets the threshold, between the ring before and this one."""
    if ring == 0:
        return float(frequency[0])
    before, here = above[ring - 1], above[ring]
    return float(frequency[ring - 1] + (frequency[ring] - frequency[ring - 1]) * before / (before - here))


def _largest_square(mask: NDArray[np.bool_]) -> tuple[slice, slice]:
    """The largest square of pixels that are all in `mask`."""
    padded = np.pad(mask, 1)
    distance = ndimage.distance_transform_cdt(padded, "chessboard")[1:-1, 1:-1]
    row, column = np.unravel_index(int(np.argmax(distance)), mask.shape)
    half = int(distance[row, column]) - 1
    return slice(int(row) - half, int(row) + half + 1), slice(int(column) - half, int(column) + half + 1)
