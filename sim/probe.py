"""The defocused probe of a Fresnel zone plate with a central stop. It has the shape of a donut."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from ptychostream.config import Settings
from ptychostream.errors import GeometryError


class ZonePlate(Settings):
    """The focusing optics. The defaults give a donut of about 750 nm at 10 keV.

    Attributes
    ----------
    diameter_m, outermost_zone_m
        Diameter and outermost zone width of the zone plate. The focal length is diameter · outermost zone / wavelength.
    central_stop_m
        Diameter of the central stop, which makes the hole.
    defocus_m
        Distance of the sample downstream of the focus, metres.
    """

    diameter_m: float = 160e-6
    outermost_zone_m: float = 30e-9
    central_stop_m: float = 72e-6
    defocus_m: float = 180e-6

    def beam_m(self, wavelength_m: float) -> float:
        """Outer diameter of the donut by geometrical optics: 2 · defocus · numerical aperture."""
        return abs(self.defocus_m) * wavelength_m / self.outermost_zone_m


def make_probe(optics: ZonePlate, wavelength_m: float, pixel_m: float, shape: tuple[int, int]) -> NDArray[np.complex64]:
    """Compute the probe on the object's pixels: the zone plate's annular pupil, propagated away from the focus.

    The pupil of radius 1 / (2 · outermost zone) in spatial frequency gets the Fresnel propagator's phase
    -π · wavelength · defocus · f² (Goodman, Introduction to Fourier Optics, eq. 4-21) and is transformed once.

    Returns
    -------
    [H, W] complex64, centred on [H//2, W//2], with Σ|probe|² = 1.

    Raises
    ------
    GeometryError
        The beam does not fit into the frame's field of view, or its cone is wider than the detector.
    """
    field_m, cutoff = min(shape) * pixel_m, 0.5 / optics.outermost_zone_m
    if optics.beam_m(wavelength_m) > 0.9 * field_m:
        raise GeometryError(
            f"a beam of {optics.beam_m(wavelength_m):.3g} m does not fit into a field of view of {field_m:.3g} m",
            where="probe",
            remedy="give less defocus, a larger distance or smaller detector pixels",
        )
    if cutoff > 0.5 / pixel_m:
        raise GeometryError(
            f"the cone of a zone plate with {optics.outermost_zone_m:.3g} m zones is wider than the detector",
            where="probe",
            remedy=f"take an outermost zone of at least {pixel_m:.3g} m or a larger frame",
        )
    fy, fx = fft.fftfreq(shape[0], pixel_m)[:, None], fft.fftfreq(shape[1], pixel_m)[None, :]
    frequency = np.hypot(fy, fx)
    step = 1 / field_m
    opening = np.clip((cutoff - frequency) / step + 0.5, 0, 1)
    stop = np.clip((cutoff * optics.central_stop_m / optics.diameter_m - frequency) / step + 0.5, 0, 1)
    pupil = (opening - stop) * np.exp(-1j * np.pi * wavelength_m * optics.defocus_m * frequency**2)
    wave = fft.fftshift(fft.ifft2(pupil))
    return (wave / np.sqrt((np.abs(wave) ** 2).sum())).astype(np.complex64)
