"""Fix by convention what ptychography cannot determine. Exit waves and patterns do not change.

A complex factor and a linear phase may move between object and probe, and both may be shifted together. The convention:
the centre of mass of the probe's intensity is at its centre (to one pixel); the object is 1 on average where the probe
was, and has no linear phase; the probe's modes are orthogonal, the strongest first.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Complex = NDArray[np.complex64]


def fix_gauge(
    object_: Complex, probe: Complex, coverage: NDArray[np.float32], max_shift: int, remove_ramp: bool
) -> tuple[Complex, Complex]:
    """Returns object [Ho, Wo] and probe [modes, n, n] in the convention.

    Parameters
    ----------
    object_, probe
        Result of an engine.
    coverage
        [Ho, Wo] accumulated probe intensity.
    max_shift
        Largest shift of object and probe in pixels: the margin around the outermost patch.
    remove_ramp
        Whether the linear phase is moved from the object to the probe.
    """
    rows, columns = np.clip(-centre_offset(probe), -max_shift, max_shift).tolist()
    object_ = np.roll(object_, (rows, columns), axis=(0, 1))
    probe = np.roll(probe, (rows, columns), axis=(1, 2))
    coverage = np.roll(coverage, (rows, columns), axis=(0, 1))
    if remove_ramp:
        slope = phase_slope(object_, coverage)
        object_ = object_ * _ramp(object_.shape, -slope)
        probe = probe * _ramp((probe.shape[-2], probe.shape[-1]), slope)
    weight = coverage / coverage.sum(dtype=np.float64)
    scale = np.sqrt((weight * np.abs(object_) ** 2).sum(dtype=np.float64))
    turn = np.exp(1j * np.angle((weight * object_).sum(dtype=np.complex128)))
    return (object_ / (scale * turn)).astype(np.complex64), orthogonalise((probe * scale * turn).astype(np.complex64))


def centre_offset(probe: Complex) -> NDArray[np.int64]:
    """(rows, columns) from the centre [n//2, n//2] to the centre of mass of the probe's intensity, in whole pixels."""
    intensity = (np.abs(probe) ** 2).sum(axis=0, dtype=np.float64)
    rows, columns = np.indices(intensity.shape)
    mass = intensity.sum()
    centre = np.array([(rows * intensity).sum() / mass, (columns * intensity).sum() / mass])
    return np.rint(centre - np.array(intensity.shape) // 2).astype(np.int64)


def phase_slope(object_: Complex, weight: NDArray[np.float32]) -> NDArray[np.float64]:
    """Weighted mean phase step from pixel to pixel (rows, columns), rad. It is correct across phase wraps."""
    along_rows = (object_[1:] * object_[:-1].conj() * weight[1:] * weight[:-1]).sum(dtype=np.complex128)
    along_columns = (object_[:, 1:] * object_[:, :-1].conj() * weight[:, 1:] * weight[:, :-1]).sum(dtype=np.complex128)
    return np.angle(np.array([along_rows, along_columns]))


def _ramp(shape: tuple[int, ...], slope: NDArray[np.float64]) -> Complex:
    rows, columns = np.ogrid[: shape[0], : shape[1]]
    return np.exp(1j * (slope[0] * rows + slope[1] * columns)).astype(np.complex64)


def orthogonalise(probe: Complex) -> Complex:
    """Orthogonal modes with the same incoherent sum, the strongest first (Thibault & Menzel 2013)."""
    if len(probe) == 1:
        return probe
    modes = probe.reshape(len(probe), -1)
    _, vectors = np.linalg.eigh(modes.conj() @ modes.T)
    return (vectors[:, ::-1].T @ modes).reshape(probe.shape).astype(np.complex64)
