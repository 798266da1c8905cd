"""The geometry of a scan from all that is said of it: energy, distance, pixel, units of the positions."""

from __future__ import annotations

from scipy import constants

from ptychostream.errors import GeometryError, ScanFileError
from ptychostream.imaging.geometry import wavelength_m
from ptychostream.statements.description import Contradiction, Description, Statement
from ptychostream.statements.quantities import QUANTITIES

RADIATIONS = ("photon", "electron")
_CORRECT = "correct the wrong one, or give the right value by the command's option"
_FLAGS = {"energy_ev": "--energy-ev", "distance_m": "--distance-m", "detector_pixel_m": "--detector-pixel-m"}


def contradictions(said: Description) -> list[Contradiction]:
    """All contradictions in `said`, also those between two quantities: energy and wavelength, width and height of a
    pixel, the units of x and y.
    """
    found = said.contradictions()
    if found:
        return found
    pairs = (_energies(said), _pixels(said), _units(said))
    return [contradiction for contradiction in pairs if contradiction is not None]


def check(said: Description) -> None:
    """Raises ContradictionError for the first contradiction."""
    for contradiction in contradictions(said):
        raise contradiction.error(said.source)


def radiation_of(said: Description) -> str:
    """ "photon", which is assumed where nothing is said, or "electron". Raises ScanFileError for another."""
    radiation = said.value("radiation")
    if radiation is None:
        return RADIATIONS[0]
    if radiation not in RADIATIONS:
        what = f"{said.about('radiation')[0]}, which is neither {' nor '.join(RADIATIONS)}"
        raise ScanFileError(what, where=said.source, remedy="scans of photons and of electrons can be read")
    return str(radiation)


def energy_of(said: Description) -> float | None:
    """Energy in eV: as it is said, or else from the wavelength. None if neither is said."""
    energy, wavelength = said.number("energy"), said.number("wavelength")
    if energy is None and wavelength is not None:
        return _energy_from(wavelength, radiation_of(said))
    return energy


def pixel_of(said: Description) -> float | None:
    """Size of a frame's pixel in metres: its width, or else its height. None if neither is said."""
    width = said.number("detector_pixel_x")
    return said.number("detector_pixel_y") if width is None else width


def needed(value: float | None, name: str, where: str) -> float:
    """`value`, or ScanFileError with the option that gives it."""
    if value is None:
        raise ScanFileError(f"the file does not give {name}", where=where, remedy=f"give it with {_FLAGS[name]}")
    return value


def _energy_from(wavelength: float, radiation: str) -> float:
    """Inverse of `wavelength_m`: E = h c / λ for photons; for electrons √((h c / λ)² + (m c²)²) − m c²."""
    photon = constants.h * constants.c / wavelength
    rest = constants.m_e * constants.c**2
    energy = photon if radiation == "photon" else (photon**2 + rest**2) ** 0.5 - rest
    return float(energy / constants.e)


def _energies(said: Description) -> Contradiction | None:
    energies, wavelengths = said.about("energy")[:1], said.about("wavelength")[:1]
    if not energies or not wavelengths or energies[0].origin == "given":
        return None
    try:
        stated = wavelength_m(float(energies[0].value), str(said.value("radiation") or RADIATIONS[0]))
    except GeometryError:  # of another radiation, which `radiation_of` refuses
        return None
    return _unequal("energy", energies[0], wavelengths[0], stated, float(wavelengths[0].value), "wavelength")


def _pixels(said: Description) -> Contradiction | None:
    width, height = said.about("detector_pixel_x")[:1], said.about("detector_pixel_y")[:1]
    if not width or not height:
        return None
    return _unequal(
        "detector_pixel_x", width[0], height[0], float(width[0].value), float(height[0].value), "detector_pixel_x"
    )


def _units(said: Description) -> Contradiction | None:
    x, y = said.about("position_unit_x"), said.about("position_unit_y")
    known, name = (x, "y") if x else (y, "x")
    if bool(x) == bool(y):
        return None
    silent = Statement(f"position_unit_{name}", "", f"the column of {name}", "no unit")
    return Contradiction(f"position_unit_{name}", (known[0], silent), "give both columns `units`, or --position-unit")


def _unequal(
    quantity: str, first: Statement, second: Statement, a: float, b: float, tolerance_of: str
) -> Contradiction | None:
    if abs(a - b) <= QUANTITIES[tolerance_of].tolerance * max(a, b):
        return None
    return Contradiction(quantity, (first, second), _CORRECT)
