"""What ptychography cannot fix, fixed by convention: exit waves and patterns stay as they are.

Object and probe may exchange a complex factor and a linear phase, and be shifted together. The convention here: the
probe's centre of intensity lies at its centre (to the pixel), the object is 1 on average where the probe went, with
no linear phase, and the probe's modes are orthogonal, strongest first.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Complex = NDArray[np.complex64]


def fix_gauge(
    object_: Complex, probe: Complex, coverage: NDArray[np.float32], max_shift: int, remove_ramp: bool
) -> tuple[Complex, Complex]:
    """Object [Ho, Wo] and probe [modes, n, n] brought to the convention.

    Parameters
    ----------
    object_, probe
        As an engine leaves them.
    coverage
        [Ho, Wo] accumulated probe intensity.
    max_shift
        Pixels that object and probe may be moved: the margin around the outermost patch.
    remove_ramp
        Whether the linear phase goes from the object to the probe.
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
    """(rows, columns) from the centre [n//2, n//2] to the centre of mass of the probe's intensity, whole pixels."""
    intensity = (np.abs(probe) ** 2).sum(axis=0, dtype=np.float64)
    rows, columns = np.indices(intensity.shape)
    mass = intensity.sum()
    centre = np.array([(rows * intensity).sum() / mass, (columns * intensity).sum() / mass])
    return np.rint(centre - np.array(intensity.shape) // 2).astype(np.int64)


def phase_slope(object_: Complex, weight: NDArray[np.float32]) -> NDArray[np.float64]:
    """(rows, columns) mean phase step from pixel to pixel, rad, weighted; phase wraps do not matter to it."""
    along_rows = (object_[1:] * object_[:-1].conj() * weight[1:] * weight[:-1]).sum(dtype=np.complex128)
    along_columns = (object_[:, 1:] * object_[:, :-1].conj() * weight[:, 1:] * weight[:, :-1]).sum(dtype=np.complex128)
    return np.angle(np.array([along_rows, along_columns]))


def _ramp(shape: tuple[int, ...], slope: NDArray[np.float64]) -> Complex:
    rows, columns = np.ogrid[: shape[0], : shape[1]]
    return np.exp(1j * (slope[0] * rows + slope[1] * columns)).astype(np.complex64)


def orthogonalise(probe: Complex) -> Complex:
    """The same incoherent sum of modes from orthogonal ones, strongest first (Thibault & Menzel 2013)."""
    if len(probe) == 1:
        return probe
    modes = probe.reshape(len(probe), -1)
    _, vectors = np.linalg.eigh(modes.conj() @ modes.T)
    return (vectors[:, ::-1].T @ modes).reshape(probe.shape).astype(np.complex64)
