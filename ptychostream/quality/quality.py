"""The similarity of two phase images. No other module computes it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.metrics import structural_similarity

from ptychostream.errors import GeometryError
from ptychostream.imaging.phase_image import PhaseImage
from ptychostream.imaging.registration import MIN_PIXELS, Aligned, align, smooth
from ptychostream.quality.runaways import runaways

SSIM_SIGMA_PX = 1.5
SSIM_RADIUS_PX = 5
"""Half width of the window of Wang et al.: 11 × 11 pixels at σ = 1.5."""

RESOLUTION_PX = 1.0


@dataclass(frozen=True)
class Quality:
    """Similarity of an image and its reference on an area.

    Attributes
    ----------
    ssim
        Mean structural similarity of the images.
    ssim_1px
        The same after a Gaussian low-pass of both images with σ = 1 object pixel, because the noise of the reference
        limits `ssim`.
    pearson, pearson_1px
        Pearson's correlation, without and with the low-pass. 0 if the image is flat.
    shift_px
        Shift of the image relative to the reference, (rows, columns). It is removed before the comparison.
    pixels
        Number of compared pixels.
    covered
        Fraction of the area that the image covers.
    range_rad
        Range of the reference's phase on the area, by which `ssim` is measured, in radians.
    runaways
        Pixels of the reference that ran away (see `ptychostream.quality.runaways`). They are not compared.
    at_limit
        Whether the true shift probably lies beyond the registration's limit, so that the figures are too low.
    """

    ssim: float
    ssim_1px: float
    pearson: float
    pearson_1px: float
    shift_px: tuple[float, float]
    pixels: int
    covered: float
    range_rad: float
    runaways: int
    at_limit: bool


def compare(image: PhaseImage, reference: PhaseImage, area: NDArray[np.bool_] | None = None) -> Quality:
    """Register `image` to `reference` (see `ptychostream.imaging.registration.align`) and compare them.

    The structural similarity has Gaussian weights (σ = 1.5 pixels, population covariance). The data range is the
    reference's maximum minus its minimum on the area, without single pixels that ran away: two of them would raise the
    similarity of any image. The mean is over the pixels whose 11 × 11 window is completely
    inside the area. If there are fewer than 64, it is over the whole area, and the images are continued outside it by
    their nearest pixel.

    Parameters
    ----------
    image, reference
        Phase images in radians, in the same axes.
    area
        [H, W] bool on the reference's grid. None takes the pixels with at least a tenth of the reference's largest
        weight.

    Raises
    ------
    GeometryError
        Image and reference do not overlap on the area, or the reference is flat.

    References
    ----------
    Wang, Bovik, Sheikh, Simoncelli, IEEE Trans. Image Process. 13, 600 (2004).
    """
    return measure(align(image, reference, area))


def measure(aligned: Aligned) -> Quality:
    """`compare` for registered images. Raises GeometryError if the reference is flat."""
    rows, columns = np.nonzero(aligned.mask)
    box = (slice(rows.min(), rows.max() + 1), slice(columns.min(), columns.max() + 1))
    area = aligned.mask[box]
    wild = runaways(aligned.reference[box], area)
    mask = area & ~wild
    nearest = tuple(ndimage.distance_transform_edt(~mask, return_distances=False, return_indices=True))
    image, reference = (values[box][nearest] for values in (aligned.image, aligned.reference))
    soft_image, soft_reference = (smooth(values, mask, RESOLUTION_PX)[nearest] for values in (image, reference))
    return Quality(
        ssim=_ssim(image, reference, area),
        ssim_1px=_ssim(soft_image, soft_reference, area),
        pearson=_pearson(image[mask], reference[mask]),
        pearson_1px=_pearson(soft_image[mask], soft_reference[mask]),
        shift_px=aligned.shift_px,
        pixels=int(mask.sum()),
        covered=aligned.covered,
        range_rad=float(np.ptp(reference[mask])),
        runaways=int(wild.sum()),
        at_limit=aligned.at_limit,
    )


def _ssim(image: NDArray[np.float64], reference: NDArray[np.float64], mask: NDArray[np.bool_]) -> float:
    data_range = float(np.ptp(reference[mask]))
    if data_range == 0:
        raise GeometryError(
            "the reference is flat on the area",
            where="comparing two phase images",
            remedy="choose an area with features",
        )
    margin = [(SSIM_RADIUS_PX, SSIM_RADIUS_PX)] * 2
    _, similarity = structural_similarity(
        np.pad(reference, margin, mode="edge"),
        np.pad(image, margin, mode="edge"),
        data_range=data_range,
        gaussian_weights=True,
        sigma=SSIM_SIGMA_PX,
        use_sample_covariance=False,
        full=True,
    )
    similarity = similarity[SSIM_RADIUS_PX:-SSIM_RADIUS_PX, SSIM_RADIUS_PX:-SSIM_RADIUS_PX]
    window = np.ones((2 * SSIM_RADIUS_PX + 1,) * 2, dtype=bool)
    whole = ndimage.binary_erosion(mask, window)
    return float(similarity[whole if whole.sum() >= MIN_PIXELS else mask].mean())


def _pearson(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    a, b = a - a.mean(), b - b.mean()
    scale = float(np.sqrt(np.vdot(a, a) * np.vdot(b, b)))
    return float(np.vdot(a, b) / scale) if scale > 0 else 0.0
