"""The first probe of a reconstruction."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from ptychostream.errors import ReconstructionError
from ptychostream.reconstruct.gauge import orthogonalise

Complex = NDArray[np.complex64]

WEAK = 0.02
"""Power of each added mode, as a fraction of the strongest mode's power."""

SAME = 1e-6
"""Modes with less than this fraction of the strongest mode's power count as copies of other modes."""


def complete(probe: Complex, modes: int, power: float) -> Complex:
    """Make `modes` orthogonal modes [modes, n, n] with Σ|probe|² = `power` from the given ones, and add missing ones.

    An added mode is weak. It is the strongest mode times y, x, y², xy, x² …, as for Hermite-Gauss modes.

    Raises
    ------
    ReconstructionError
        The given probe is zero or not finite.
    """
    strength = (np.abs(probe) ** 2).sum(axis=(1, 2))
    if not (np.isfinite(strength).all() and strength.sum() > 0):
        raise ReconstructionError(
            "the given probe is zero or not finite", where="probe", remedy="give none: one is made from the patterns"
        )
    ordered = orthogonalise(probe)
    strength = (np.abs(ordered) ** 2).sum(axis=(1, 2))
    found = list(ordered[strength > SAME * strength[0]][:modes])
    size = probe.shape[-1]
    y, x = (np.indices((size, size)) - size // 2) / size
    powers = [(total - right, right) for total in range(1, modes + 1) for right in range(total + 1)]
    for down, right in powers[: modes - len(found)]:
        mode = found[0] * y**down * x**right
        for other in found:
            mode = mode - other * (np.vdot(other, mode) / np.vdot(other, other))
        found.append(mode * np.sqrt(WEAK * strength[0] / np.vdot(mode, mode).real))
    all_modes = np.stack(found)
    return np.ascontiguousarray(all_modes * np.sqrt(power / (np.abs(all_modes) ** 2).sum()), np.complex64)


def from_pattern(mean: NDArray[np.float64], curvature: float) -> Complex:
    """A probe [1, n, n] whose far field has the amplitude of the mean pattern and a quadratic phase.

    Parameters
    ----------
    mean
        [n, n] mean counts, zero frequency at [0, 0].
    curvature
        π · wavelength · defocus / (n · pixel)², rad. The phase is minus this times the squared distance from the zero
        frequency in detector pixels (Goodman, Introduction to Fourier Optics, eq. 4-21). It is positive behind the
        focus.
    """
    size = len(mean)
    index = fft.fftfreq(size, 1 / size)
    phase = -curvature * (index[:, None] ** 2 + index[None, :] ** 2)
    return fft.fftshift(fft.ifft2(np.sqrt(mean) * np.exp(1j * phase), norm="ortho"))[None].astype(np.complex64)


def search_curvature(mean: NDArray[np.float64], r_factor: Callable[[Complex], float]) -> float:
    """Search the curvature of `from_pattern` whose probe explains the patterns best.

    The search tries beams from a tenth to seven tenths of the field of view on both sides of the focus, then the
    neighbourhood of the best one.

    Parameters
    ----------
    r_factor
        Returns the R factor of a short trial reconstruction that starts from a probe [1, n, n].
    """
    size = len(mean)
    index = fft.fftfreq(size, 1 / size)
    radius = np.sqrt(2 * (mean * (index[:, None] ** 2 + index[None, :] ** 2)).sum() / mean.sum())
    # A ray at detector pixel k crosses the object at k · size · curvature / π object pixels from the axis.
    unit = np.pi / (2 * radius)

    def trial(beam: float) -> tuple[float, float]:
        return r_factor(from_pattern(mean, beam * unit)), beam

    tried = [trial(sign * beam) for beam in (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7) for sign in (1, -1)]
    for step in (0.05, 0.025):
        best = min(tried)[1]
        tried += [trial(best - step), trial(best + step)]
    return min(tried)[1] * unit
