"""Labels: the phase and amplitude that a network should give for each diffraction pattern, from a reconstruction.

A reconstruction determines the object's phase only up to a constant and a ramp. Both are removed before the labels are
cut out, so that the patterns of several scans agree.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from ptychostream.errors import GeometryError, TrainingError
from ptychostream.imaging.probe_weight import probe_weight
from ptychostream.scans.scan import Reconstruction

INTERPOLATION_MARGIN = 2
"""Object pixels beyond a patch's edge that its interpolation reads."""
WELL_COVERED = 0.2
"""The fit uses the object's phase where the coverage is above this fraction of its median."""


@dataclass(frozen=True)
class Labels:
    """Labels of the frames of one scan.

    Attributes
    ----------
    phase
        [N, h, w] float32, rad, constant and ramp of the whole object removed.
    amplitude
        [N, h, w] float32 in 0…1, the object's brightest parts at 1.
    weight
        [h, w] float32, the probe's footprint, at most 1.
    pixel_m
        Object pixel, metres; pixel [h//2, w//2] lies at the frame's position.
    """

    phase: NDArray[np.float32]
    amplitude: NDArray[np.float32]
    weight: NDArray[np.float32]
    pixel_m: float


def make_labels(
    reconstruction: Reconstruction,
    positions_m: NDArray[np.float64],
    shape: tuple[int, int],
    blur_px: float = 2.0,
) -> Labels:
    """Cut a label of `shape` (h, w) from the object at each of `positions_m` [N, 2] (x, y).

    Positions need not lie on the object's pixels: the complex object is interpolated by cubic splines.

    Raises
    ------
    TrainingError
        The object has no covered pixel, or the object or a position is not finite.
    GeometryError
        A patch extends beyond the object.
    """
    if not np.isfinite(positions_m).all():
        bad = int(np.flatnonzero(~np.isfinite(positions_m).all(axis=1))[0])
        raise TrainingError(f"position {bad} is not finite", where="labels", remedy="leave that frame out")
    coefficients = ndimage.spline_filter(flatten(reconstruction).object, order=3, output=np.complex128, mode="mirror")
    column_row = (positions_m - np.asarray(reconstruction.origin_m)) / reconstruction.pixel_m
    patches = np.empty((len(positions_m), *shape), dtype=np.complex64)
    for i, (column, row) in enumerate(column_row):
        patches[i] = _sample(coefficients, row - shape[0] // 2, column - shape[1] // 2, shape, i)
    return Labels(
        phase=np.angle(patches).astype(np.float32),
        amplitude=np.clip(np.abs(patches), 0, 1).astype(np.float32),
        weight=probe_weight(reconstruction.probe, shape, blur_px=blur_px),
        pixel_m=reconstruction.pixel_m,
    )


@dataclass(frozen=True)
class FlatObject:
    """An object without constant and linear phase.

    Attributes
    ----------
    object
        [Ho, Wo] complex64, 99th percentile of its modulus at 1.
    slope
        (row, column) phase step per pixel that was removed, rad; the probe for `object` carries it.
    """

    object: NDArray[np.complex64]
    slope: tuple[float, float]


def flatten(reconstruction: Reconstruction) -> FlatObject:
    """Remove the constant and linear phase of the object's covered area.

    The first slope is the mean phase step between neighbours, which wrapped phases do not disturb. The second is that
    of a least-squares plane through the remaining phase.

    Raises
    ------
    TrainingError
        The object has no covered pixel, or is not finite.
    """
    coverage = reconstruction.coverage
    covered = coverage > 0
    if not covered.any() or not np.isfinite(reconstruction.object).all():
        what = "the object is not finite" if covered.any() else "the reconstruction covers nothing"
        raise TrainingError(what, where=reconstruction.scan_id or "reconstruction", remedy="reconstruct the scan again")
    good = coverage > WELL_COVERED * np.median(coverage[covered])
    weight = np.where(good, np.minimum(coverage, np.median(coverage[good])), 0).astype(np.float64)
    field = reconstruction.object.astype(np.complex128)
    field = field / np.percentile(np.abs(field[good]), 99)
    rows, columns = np.indices(field.shape, dtype=np.float64)
    slope = np.array([_mean_step(field, weight, axis) for axis in (0, 1)])
    field = field * np.exp(-1j * (slope[0] * rows + slope[1] * columns))
    for _ in range(2):
        field = field * np.exp(-1j * np.angle(np.sum(weight * field)))
        constant, *more = _plane(np.angle(field), weight, rows, columns)
        field = field * np.exp(-1j * (constant + more[0] * rows + more[1] * columns))
        slope += more
    return FlatObject(field.astype(np.complex64), (float(slope[0]), float(slope[1])))


def flat_probe(probe: NDArray[np.complex64], flat: FlatObject) -> NDArray[np.complex64]:
    """[modes, H, W] probe with the ramp that was removed from the object: together they give the same patterns."""
    rows, columns = np.ogrid[: probe.shape[-2], : probe.shape[-1]]
    ramp = np.exp(1j * (flat.slope[0] * rows + flat.slope[1] * columns))
    return (probe * ramp).astype(np.complex64)


def _mean_step(field: NDArray[np.complex128], weight: NDArray[np.float64], axis: int) -> float:
    """Phase step per pixel along `axis`, rad, from the sum of o[i+1]·conj(o[i])."""
    after, before = [slice(None)] * 2, [slice(None)] * 2
    after[axis], before[axis] = slice(1, None), slice(None, -1)
    products = field[tuple(after)] * field[tuple(before)].conj()
    return float(np.angle(np.sum(products * np.minimum(weight[tuple(after)], weight[tuple(before)]))))


def _plane(
    phase: NDArray[np.float64], weight: NDArray[np.float64], rows: NDArray[np.float64], columns: NDArray[np.float64]
) -> NDArray[np.float64]:
    """(constant, per row, per column) of the weighted least-squares plane."""
    used = weight > 0
    basis = np.stack([np.ones(int(used.sum())), rows[used], columns[used]], axis=1)
    root = np.sqrt(weight[used])
    fit: NDArray[np.float64] = np.linalg.lstsq(basis * root[:, None], phase[used] * root, rcond=None)[0]
    return fit


def _sample(
    coefficients: NDArray[np.complex128], row: float, column: float, shape: tuple[int, int], frame: int
) -> NDArray[np.complex128]:
    """The spline of `coefficients` at rows row, row+1, … and columns column, column+1, …"""
    top, left = int(np.floor(row)), int(np.floor(column))
    height, width = shape
    if min(top, left) < 1 or top + height + 2 > coefficients.shape[0] or left + width + 2 > coefficients.shape[1]:
        raise GeometryError(
            f"the label of frame {frame} leaves the object",
            where="labels",
            remedy="give the positions that were reconstructed, or a smaller patch",
        )
    block = coefficients[top - 1 : top + height + 2, left - 1 : left + width + 2]
    tall = np.stack([block[k : k + height] for k in range(4)])
    block = np.tensordot(_spline_weights(row - top), tall, 1)
    wide = np.stack([block[:, k : k + width] for k in range(4)])
    patch: NDArray[np.complex128] = np.tensordot(_spline_weights(column - left), wide, 1)
    return patch


def _spline_weights(t: float) -> tuple[float, float, float, float]:
    """Cubic B-spline at distances 1+t, t, 1-t, 2-t."""
    return (1 - t) ** 3 / 6, (3 * t**3 - 6 * t**2 + 4) / 6, (-3 * t**3 + 3 * t**2 + 3 * t + 1) / 6, t**3 / 6


def centre_crop(image: NDArray[np.float64], shape: tuple[int, int]) -> NDArray[np.float64]:
    """The (h, w) pixels about [H//2, W//2], which becomes [h//2, w//2]; GeometryError where there are fewer."""
    top, left = (image.shape[i] // 2 - shape[i] // 2 for i in (0, 1))
    if top < 0 or left < 0:
        what = f"patch {shape} is larger than the probe's window {image.shape}"
        raise GeometryError(what, where="labels", remedy="train on patterns no larger than those reconstructed")
    return image[top : top + shape[0], left : left + shape[1]]


def suggest_reduction(probe: NDArray[np.complex64], input_shape: tuple[int, int]) -> int:
    """2 where the middle half of the window holds nine tenths of the probe's intensity, else 1; see `Network`."""
    intensity = np.sum(np.abs(probe.astype(np.complex128)) ** 2, axis=0)
    half = (input_shape[0] // 2, input_shape[1] // 2)
    return 2 if centre_crop(intensity, half).sum() >= 0.9 * intensity.sum() else 1
