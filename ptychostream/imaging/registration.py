"""Register two phase images: one grid, sub-pixel shift, constant and linear phase.

The fit removes only what ptychography cannot measure: the origin of the object within a fraction of the step, a
constant phase, and a phase ramp.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy import fft, ndimage

from ptychostream.errors import GeometryError
from ptychostream.imaging.phase_image import PhaseImage

MAX_SHIFT_PX = 4.0
"""The largest shift. Positions are known, so images with a larger shift do not show the same scan."""

MIN_PIXELS = 64
MIN_WEIGHT = 0.1

_IDENTITY_PX = 1e-2
_STEP_PX = 2e-3
_ITERATIONS = 10
_SEARCHED = 3
"""Times the limit within which a better agreement is looked for."""
_CONVINCING = 0.5
"""Correlation above which an agreement beyond the limit is believed."""


Scalar = TypeVar("Scalar", bound=np.generic)


@dataclass(frozen=True)
class Aligned:
    """Two registered images on the reference's grid.

    Attributes
    ----------
    image, reference
        [H, W] float64 radians, NaN where not measured. The constant and linear phase are removed from both, and `image`
        is unwrapped relative to `reference`.
    mask
        [H, W] bool, the pixels of the area where both were measured.
    shift_px
        Shift of the image relative to the reference, (rows, columns).
    covered
        Fraction of the area's pixels in the reference that the image has too.
    at_limit
        Whether the shift is at its limit, or the images agree better at a larger one.
    """

    image: NDArray[np.float64]
    reference: NDArray[np.float64]
    mask: NDArray[np.bool_]
    shift_px: tuple[float, float]
    covered: float
    at_limit: bool = False


def measured_area(image: PhaseImage) -> NDArray[np.bool_]:
    """[H, W] bool: the pixels where `image` has a phase and at least a tenth of its largest weight."""
    measured = np.isfinite(image.phase) & (image.weight > 0)
    if not measured.any():
        return measured
    area: NDArray[np.bool_] = measured & (image.weight >= MIN_WEIGHT * image.weight[measured].max())
    return area


def align(image: PhaseImage, reference: PhaseImage, area: NDArray[np.bool_] | None = None) -> Aligned:
    """Register `image` to `reference`, using only the pixels of `area`.

    The shift (at most `MAX_SHIFT_PX`) starts from the peak of the masked, normalised cross-correlation. Gauss-Newton
    steps refine it together with the phase plane. Both images are low-passed with σ = 1 pixel for this.

    Parameters
    ----------
    area
        [H, W] bool on the reference's grid; None takes `measured_area(reference)`.

    Raises
    ------
    GeometryError
        `area` has another shape than the reference, the pixel sizes differ by more than a factor of two, or image and
        reference share fewer than `MIN_PIXELS` pixels of the area.
    """
    area = _checked_area(image, reference, area)
    known = area & np.isfinite(reference.phase)
    source = _Source(image, reference)
    box = _bounding_box(known, int(np.ceil(MAX_SHIFT_PX)) + 2)
    target = np.exp(1j * np.where(known, reference.phase, 0.0).astype(np.float64))
    _, sampled_mask = source.sample((0.0, 0.0), box)
    _check_overlap(known[box] & sampled_mask, known)
    shift, at_limit = _register(source, target[box], known[box], box)
    sampled, sampled_mask = source.sample(shift, (slice(0, area.shape[0]), slice(0, area.shape[1])))
    mask = known & sampled_mask
    _check_overlap(mask, known)

    finite = np.isfinite(reference.phase)
    whole = np.exp(1j * np.where(finite, reference.phase, 0.0).astype(np.float64))
    own_plane = fit_plane(target, mask)
    flat = np.angle(whole * np.exp(-1j * own_plane))
    difference = sampled * np.conj(whole)
    residual = np.angle(difference * np.exp(-1j * fit_plane(difference, mask)))
    flat = _unwrapped(flat, mask)
    return Aligned(
        image=np.where(sampled_mask & finite, flat + residual, np.nan),
        reference=np.where(finite, flat, np.nan),
        mask=mask,
        shift_px=shift,
        covered=float(mask.sum() / known.sum()),
        at_limit=at_limit,
    )


def fit_plane(phasor: NDArray[np.complex128], mask: NDArray[np.bool_]) -> NDArray[np.float64]:
    """The plane a + b·row + c·column that fits the phase of `phasor` on `mask` best, [H, W] in radians.

    The fit starts from the peak of the Fourier transform, so that it finds ramps of many turns. Least squares on the
    wrapped residual refine it.
    """
    shape = phasor.shape
    padded = tuple(fft.next_fast_len(2 * n) for n in shape)
    spectrum = np.abs(fft.fft2(np.where(mask, phasor, 0.0), padded))
    peak = np.unravel_index(int(np.argmax(spectrum)), padded)
    slopes = [2 * np.pi * float(fft.fftfreq(n)[i]) for n, i in zip(padded, peak, strict=True)]
    rows, columns = np.nonzero(mask)
    middle = (rows.mean(), columns.mean())
    design = np.stack([np.ones(rows.size), rows - middle[0], columns - middle[1]], axis=1)
    inverse = np.linalg.pinv(design.T @ design) @ design.T
    values = phasor[mask]
    coefficients = np.array([0.0, *slopes])
    coefficients[0] = np.angle(np.sum(values * np.exp(-1j * (design @ coefficients))))
    for _ in range(_ITERATIONS):
        step = inverse @ np.angle(values * np.exp(-1j * (design @ coefficients)))
        coefficients += step
        if np.abs(step).max() < 1e-7:
            break
    grid_rows, grid_columns = np.ogrid[: shape[0], : shape[1]]
    plane: NDArray[np.float64] = (
        coefficients[0] + coefficients[1] * (grid_rows - middle[0]) + coefficients[2] * (grid_columns - middle[1])
    )
    return plane


def smooth(values: NDArray[np.inexact], mask: NDArray[np.bool_], sigma: float) -> NDArray[np.inexact]:
    """Gaussian low-pass of the pixels of `mask` (normalised convolution). 0 where no such pixel is near."""
    weight = ndimage.gaussian_filter(mask.astype(np.float64), sigma, mode="constant")
    filtered = ndimage.gaussian_filter(np.where(mask, values, 0.0), sigma, mode="constant")
    return np.divide(filtered, weight, out=np.zeros_like(filtered), where=weight > 1e-6)


def on_grid(
    values: NDArray[np.floating], image: PhaseImage, reference: PhaseImage, shift_px: tuple[float, float]
) -> NDArray[np.float64]:
    """[H, W] a quantity of the pixels of `image`, interpolated on the reference's grid with the shift of `align`.

    NaN outside the image, and beside pixels that are NaN.
    """
    scale, offset = _grids(image, reference)
    start = [moved * scale + first for moved, first in zip(shift_px, offset, strict=True)]
    found: NDArray[np.float64] = ndimage.affine_transform(
        values.astype(np.float64), [scale] * 2, start, reference.phase.shape, order=1, cval=np.nan
    )
    return found


def _grids(image: PhaseImage, reference: PhaseImage) -> tuple[float, list[float]]:
    """Pixels of the image in one of the reference, and (row, column) of the image at the reference's first pixel."""
    offset = [(reference.origin_m[axis] - image.origin_m[axis]) / image.pixel_m for axis in (1, 0)]
    return reference.pixel_m / image.pixel_m, offset


class _Source:
    """The image as phasors, sampled on the reference's grid with a sub-pixel shift."""

    def __init__(self, image: PhaseImage, reference: PhaseImage) -> None:
        self._scale, self._offset = _grids(image, reference)
        mask = np.isfinite(image.phase) & (image.weight > 0)
        self._mask = mask
        nearest = ndimage.distance_transform_edt(~mask, return_distances=False, return_indices=True)
        self._phasor = np.exp(1j * image.phase.astype(np.float64)[tuple(nearest)])
        self._splines: NDArray[np.complex128] | None = None

    def sample(
        self, shift: tuple[float, float], box: tuple[slice, slice]
    ) -> tuple[NDArray[np.complex128], NDArray[np.bool_]]:
        """The phasors at (row + shift) of the reference's grid within `box`, and the mask of measured ones."""
        shape = tuple(part.stop - part.start for part in box)
        start = [
            (part.start + moved) * self._scale + offset
            for part, moved, offset in zip(box, shift, self._offset, strict=True)
        ]
        whole = [round(value) for value in start]
        on_grid = abs(self._scale - 1) * max(shape) < _IDENTITY_PX
        if on_grid and max(abs(a - b) for a, b in zip(start, whole, strict=True)) < _IDENTITY_PX:
            return _window(self._phasor, whole, shape), _window(self._mask, whole, shape)
        if self._splines is None:
            self._splines = ndimage.spline_filter(self._phasor, order=3, output=np.complex128, mode="nearest")
        phasor = ndimage.affine_transform(
            self._splines, [self._scale] * 2, start, shape, order=3, mode="nearest", prefilter=False
        )
        inside = ndimage.affine_transform(
            self._mask.astype(np.float32), [self._scale] * 2, start, shape, order=1, mode="constant"
        )
        magnitude = np.abs(phasor)
        phasor /= np.where(magnitude > 0, magnitude, 1.0)
        return phasor, inside > 1 - 1e-3


def _register(
    source: _Source, target: NDArray[np.complex128], known: NDArray[np.bool_], box: tuple[slice, slice]
) -> tuple[tuple[float, float], bool]:
    """The shift of the sampling of `source`, (rows, columns), and whether the true one seems to be beyond the limit."""
    moved, moved_mask = source.sample((0.0, 0.0), box)
    coarse, beyond = _coarse_shift(moved, moved_mask, target, known)
    inner = ndimage.binary_erosion(known, iterations=2) if known.sum() > 20 * MIN_PIXELS else known
    flat_target = target * np.exp(-1j * fit_plane(target, known))
    gradient = np.gradient(np.angle(smooth(flat_target, known, 1.0)))
    rows, columns = np.indices(known.shape)
    terms = np.stack([*gradient, np.ones(known.shape), rows - rows.mean(), columns - columns.mean()], axis=-1)
    moved, moved_mask = source.sample(coarse, box)
    difference = moved * np.conj(flat_target)
    unplaned = np.conj(flat_target) * np.exp(-1j * fit_plane(difference, known & moved_mask))
    shift = np.array(coarse)
    for _ in range(_ITERATIONS):
        common = inner & moved_mask
        if common.sum() < MIN_PIXELS:
            return coarse, beyond
        residual = np.angle(smooth(moved * unplaned, known & moved_mask, 1.0))[common]
        design = terms[common]
        # The rest of the plane is fitted together with the step, so that it is not mistaken for a shift.
        step = (np.linalg.pinv(design.T @ design) @ (design.T @ residual))[:2]
        shift -= np.clip(step, -1.0, 1.0)
        if not np.isfinite(shift).all() or np.abs(shift).max() > MAX_SHIFT_PX:
            return coarse, beyond or max(map(abs, coarse)) >= MAX_SHIFT_PX
        if np.abs(step).max() < _STEP_PX:
            break
        moved, moved_mask = source.sample((float(shift[0]), float(shift[1])), box)
    return (float(shift[0]), float(shift[1])), beyond


def _coarse_shift(
    moved: NDArray[np.complex128],
    moved_mask: NDArray[np.bool_],
    target: NDArray[np.complex128],
    known: NDArray[np.bool_],
) -> tuple[tuple[float, float], bool]:
    """The shift in whole pixels at the peak of the masked normalised cross-correlation, within `MAX_SHIFT_PX`.

    And whether a higher peak lies outside, up to three times as far.
    """
    limit = _SEARCHED * int(MAX_SHIFT_PX)
    a, b = (_flattened(phasor, mask) for phasor, mask in ((target, known), (moved, moved_mask)))
    shape = tuple(fft.next_fast_len(n + 2 * limit, real=True) for n in a.shape)

    def correlate(left: NDArray[np.float64], right: NDArray[np.float64]) -> NDArray[np.float64]:
        product = np.conj(fft.rfft2(left, shape)) * fft.rfft2(right, shape)
        full = fft.irfft2(product, shape)
        reach = np.arange(-limit, limit + 1)
        near: NDArray[np.float64] = full[np.ix_(reach, reach)]
        return near

    energy = correlate(a**2, moved_mask.astype(np.float64)) * correlate(known.astype(np.float64), b**2)
    score = correlate(a, b) / np.sqrt(np.maximum(energy, np.finfo(np.float64).tiny))
    away = int(MAX_SHIFT_PX)
    inner = score[limit - away : limit + away + 1, limit - away : limit + away + 1]
    row, column = np.unravel_index(int(np.argmax(inner)), inner.shape)
    beyond = float(score.max()) > max(float(inner.max()), _CONVINCING)
    return (float(row) - away, float(column) - away), beyond


def _flattened(phasor: NDArray[np.complex128], mask: NDArray[np.bool_]) -> NDArray[np.float64]:
    """The low-passed phase without its plane and mean, 0 outside `mask`."""
    flat = np.angle(smooth(phasor * np.exp(-1j * fit_plane(phasor, mask)), mask, 1.0))
    return np.where(mask, flat - flat[mask].mean(), 0.0)


def _unwrapped(phase: NDArray[np.float64], mask: NDArray[np.bool_]) -> NDArray[np.float64]:
    """`phase` without 2π jumps between neighbouring pixels of `mask`. Isolated pixels are unchanged."""
    jumps = any((np.abs(np.diff(phase, axis=axis)) > np.pi)[_both(mask, axis)].any() for axis in (0, 1))
    if not jumps:
        return phase
    from skimage.restoration import unwrap_phase

    unwrapped = unwrap_phase(np.ma.array(phase, mask=~mask), rng=0)
    turns = np.round((np.ma.getdata(unwrapped)[mask] - phase[mask]).mean() / (2 * np.pi))
    result: NDArray[np.float64] = np.where(mask, np.ma.getdata(unwrapped) - 2 * np.pi * turns, phase)
    return result


def _both(mask: NDArray[np.bool_], axis: int) -> NDArray[np.bool_]:
    pair: NDArray[np.bool_] = mask[1:] & mask[:-1] if axis == 0 else mask[:, 1:] & mask[:, :-1]
    return pair


def _window(values: NDArray[Scalar], start: list[int], shape: tuple[int, ...]) -> NDArray[Scalar]:
    """`values[start : start + shape]`, zero (False) outside the array."""
    window = np.zeros(shape, values.dtype)
    lower = [max(0, -first) for first in start]
    upper = [min(size, extent - first) for first, size, extent in zip(start, shape, values.shape, strict=True)]
    if all(low < high for low, high in zip(lower, upper, strict=True)):
        inside = tuple(slice(low, high) for low, high in zip(lower, upper, strict=True))
        window[inside] = values[
            tuple(slice(first + part.start, first + part.stop) for first, part in zip(start, inside, strict=True))
        ]
    return window


def _bounding_box(mask: NDArray[np.bool_], margin: int) -> tuple[slice, slice]:
    rows, columns = np.nonzero(mask)
    return (
        slice(max(0, int(rows.min()) - margin), min(mask.shape[0], int(rows.max()) + 1 + margin)),
        slice(max(0, int(columns.min()) - margin), min(mask.shape[1], int(columns.max()) + 1 + margin)),
    )


def _checked_area(image: PhaseImage, reference: PhaseImage, area: NDArray[np.bool_] | None) -> NDArray[np.bool_]:
    ratio = reference.pixel_m / image.pixel_m
    if not 0.5 <= ratio <= 2:
        raise GeometryError(
            f"pixels of {image.pixel_m:g} m and {reference.pixel_m:g} m",
            where="comparing two phase images",
            remedy="compare images of one scan and geometry",
        )
    if area is None:
        area = measured_area(reference)
    if area.shape != reference.phase.shape:
        raise GeometryError(
            f"the area has shape {area.shape}, the reference {reference.phase.shape}",
            where="comparing two phase images",
            remedy="give the area on the reference's grid",
        )
    known = int((area & np.isfinite(reference.phase)).sum())
    if known < MIN_PIXELS:
        raise GeometryError(
            f"the area holds {known} measured pixels of the reference, fewer than {MIN_PIXELS}",
            where="comparing two phase images",
            remedy="choose a larger area within the scan",
        )
    return area


def _check_overlap(common: NDArray[np.bool_], known: NDArray[np.bool_]) -> None:
    if common.sum() < MIN_PIXELS:
        raise GeometryError(
            f"image and reference share {int(common.sum())} of the area's {int(known.sum())} pixels, "
            f"fewer than {MIN_PIXELS}",
            where="comparing two phase images",
            remedy="check that both are of the same scan, in the same axes, and that frames have been stitched there",
        )
