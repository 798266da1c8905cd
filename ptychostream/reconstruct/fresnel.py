"""Near-field propagation from the sample to a detector close behind it: Fresnel's transfer function.

A pixel of the object is a pixel of the detector, divided by the magnification of a cone beam. For a beam from a point
z₁ before the sample, a detector z₂ behind it and M = (z₁ + z₂) / z₁, the pattern is that of a parallel beam at the
distance z₂ / M with pixels smaller by M (the Fresnel scaling theorem, Paganin, Coherent X-Ray Optics, 2006, app. B).
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from ptychostream.errors import ReconstructionError
from ptychostream.imaging.geometry import wavelength_m
from ptychostream.reconstruct.options import ReconstructOptions
from ptychostream.reconstruct.patterns import Patterns
from ptychostream.scans.scan import Scan

Complex = NDArray[np.complex64]


def near_field(scan: Scan, patterns: Patterns, options: ReconstructOptions) -> tuple[Patterns, float, Complex]:
    """The patterns in the order of their pixels, the object's pixel in metres, and the transfer function.

    Raises
    ------
    ReconstructionError
        The detector is too far away.
    """
    pixel_m = scan.detector_pixel_m * options.bin / options.magnification
    distance_m = scan.distance_m / options.magnification
    factor = transfer(len(patterns.mean), pixel_m, wavelength_m(scan.energy_ev, scan.radiation), distance_m)
    shifted = np.fft.fftshift(patterns.amplitudes, axes=(1, 2))
    return replace(patterns, amplitudes=shifted, mean=np.fft.fftshift(patterns.mean)), pixel_m, factor


def transfer(size: int, pixel_m: float, wavelength: float, distance_m: float) -> Complex:
    """[n, n] factors of a wave's Fourier components, exp(−iπλz(u² + v²)), zero frequency at [0, 0].

    Goodman, Introduction to Fourier Optics, eq. 4-21.

    Raises
    ------
    ReconstructionError
        The factor turns by more than π from one frequency to the next: λz > n · pixel².
    """
    farthest = size * pixel_m**2 / wavelength
    if distance_m > farthest:
        raise ReconstructionError(
            f"the detector is {distance_m:.3g} m away; in {size} pixels of {pixel_m:.3g} m a Fresnel propagator "
            f"reaches {farthest:.3g} m",
            where="--propagator fresnel",
            remedy="leave it out for far-field data, or correct energy, distance, pixel and --magnification",
        )
    frequency = fft.fftfreq(size, pixel_m)
    squared = frequency[:, None] ** 2 + frequency[None, :] ** 2
    return np.exp(-1j * np.pi * wavelength * distance_m * squared).astype(np.complex64)


def probe_from_pattern(mean: NDArray[np.float64], factor: Complex) -> Complex:
    """The mean pattern's amplitude, propagated back to the sample, [1, n, n]."""
    wave = fft.ifft2(fft.fft2(np.sqrt(mean)) * factor.conj())
    return np.asarray(wave, np.complex64)[None]
