"""Wavelengths and pixel sizes of far-field ptychography."""

from __future__ import annotations

import math
from dataclasses import dataclass

from scipy import constants

from ptychostream.errors import GeometryError


def _positive(**values: float) -> None:
    for name, value in values.items():
        if not (math.isfinite(value) and value > 0):
            raise GeometryError(f"{name} = {value}", where="geometry", remedy="give a number above 0, in SI units")


def wavelength_m(energy_ev: float, radiation: str = "photon") -> float:
    """Wavelength in metres.

    Parameters
    ----------
    energy_ev
        Photon energy, eV. For electrons the accelerating voltage, V.
    radiation
        "photon": λ = h c / E. "electron": λ = h / √(2 m e V (1 + e V / 2 m c²)), relativistic (Reimer and Kohl,
        Transmission Electron Microscopy, 5th ed., eq. 2.8).

    Raises
    ------
    GeometryError
        The energy is not above 0, or the radiation is unknown.

    Examples
    --------
    >>> round(wavelength_m(10e3) * 1e10, 5)
    1.23984
    >>> round(wavelength_m(300e3, "electron") * 1e12, 3)
    1.969
    """
    _positive(energy_ev=energy_ev)
    if radiation == "photon":
        return float(constants.h * constants.c / (energy_ev * constants.e))
    if radiation == "electron":
        energy, rest = energy_ev * constants.e, constants.m_e * constants.c**2
        return float(constants.h * constants.c / math.sqrt(energy * (energy + 2 * rest)))
    raise GeometryError(f"radiation {radiation!r}", where="geometry", remedy='give "photon" or "electron"')


def object_pixel_m(
    energy_ev: float, distance_m: float, detector_pixel_m: float, pixels: int, radiation: str = "photon"
) -> float:
    """Pixel size of the reconstructed object in metres: wavelength · distance / (pixels · detector pixel).

    Parameters
    ----------
    energy_ev, radiation
        See `wavelength_m`.
    distance_m, detector_pixel_m
        Distance from the sample to the detector, and pixel size of the detector, metres.
    pixels
        Width of the pattern in raw detector pixels, after the crop and before binning.

    Raises
    ------
    GeometryError
        A value is not above 0.

    Examples
    --------
    >>> round(object_pixel_m(10e3, 0.9, 75e-6, 128) * 1e9, 2)
    11.62
    """
    _positive(distance_m=distance_m, detector_pixel_m=detector_pixel_m, pixels=pixels)
    return wavelength_m(energy_ev, radiation) * distance_m / (pixels * detector_pixel_m)


def overlap(step: float, beam: float) -> float:
    """Linear overlap of neighbouring positions, 1 − step / beam (Babu et al. 2023). It is negative for gaps.

    Examples
    --------
    >>> round(overlap(50e-9, 750e-9), 2)
    0.93
    """
    _positive(beam=beam)
    if not (math.isfinite(step) and step >= 0):
        raise GeometryError(f"step = {step}", where="geometry", remedy="give the distance between neighbours")
    return 1 - step / beam


@dataclass(frozen=True)
class Preset:
    """An instrument's geometry.

    Attributes
    ----------
    energy_ev, radiation, distance_m, detector_pixel_m
        See `object_pixel_m`.
    detector_shape
        Rows and columns of the detector or its region.
    pattern_shape
        Rows and columns that are used. They are centred on the beam.
    source
        Source of the figures.
    """

    name: str
    energy_ev: float
    distance_m: float
    detector_pixel_m: float
    detector_shape: tuple[int, int]
    pattern_shape: tuple[int, int]
    radiation: str = "photon"
    source: str = ""

    @property
    def wavelength_m(self) -> float:
        return wavelength_m(self.energy_ev, self.radiation)

    @property
    def object_pixel_m(self) -> float:
        return object_pixel_m(
            self.energy_ev, self.distance_m, self.detector_pixel_m, self.pattern_shape[1], self.radiation
        )


_BABU = "Babu et al. 2023 (Nat. Commun. 14, 7059)"
_PRESETS = (
    Preset("26-ID Eiger2 X 500K", 10e3, 0.9, 75e-6, (128, 128), (128, 128), source=_BABU),
    Preset("26-ID Medipix3", 10e3, 1.55, 55e-6, (516, 516), (512, 512), source=_BABU),
    Preset(
        "300 kV EMPAD",
        300e3,
        0.19,
        150e-6,
        (128, 128),
        (128, 128),
        "electron",
        "pixel and shape: Tate et al. 2016 (Microsc. Microanal. 22, 237); camera length: an example, 0.79 mrad a pixel",
    ),
)
PRESETS = {preset.name: preset for preset in _PRESETS}
