"""The geometry of a scan from all that is said of it: energy, distance, pixel, units of the positions."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import constants

from ptychostream.errors import ContradictionError, GeometryError, ScanFileError
from ptychostream.imaging.geometry import wavelength_m
from ptychostream.statements.description import CORRECT, Contradiction, Description, Statement
from ptychostream.statements.quantities import QUANTITIES
from ptychostream.statements.radiation import RADIATIONS, implausible

MOST_PIXELS = 1e9
"""The largest object that is believed, in pixels."""
SOME_PIXEL_M = 1e-4
"""Detector pixel where nobody says it and the angle of a pixel is known: only distance / pixel counts."""
_FLAGS = {"energy_ev": "--energy-ev", "distance_m": "--distance-m", "detector_pixel_m": "--detector-pixel-m"}


def contradictions(said: Description) -> list[Contradiction]:
    """All contradictions in `said`, also those between two quantities: energy and wavelength, energy and radiation,
    width and height of a pixel, the units of x and y, the pixel of the object and what it follows from.
    """
    found = said.contradictions()
    if found:
        return found
    pairs = (_energies(said), _implausible_energy(said), _pixels(said), _units(said), _object_pixels(said))
    return [contradiction for contradiction in pairs if contradiction is not None]


def check(said: Description) -> None:
    """Raises ContradictionError for the first contradiction."""
    for contradiction in contradictions(said):
        raise contradiction.error(said.source)


def give_angle(said: Description, pattern_pixel_rad: float | None, option: str) -> None:
    """Add the pixel of the object that follows from the angle of a pixel of the pattern: wavelength / (width · angle).

    Nothing is added where the energy is not known. Raises ScanFileError for an angle that is not above 0.
    """
    if pattern_pixel_rad is not None and not pattern_pixel_rad > 0:
        raise ScanFileError(
            f"{option}: an angle of {pattern_pixel_rad:g} rad", where=said.source, remedy="give one above 0"
        )
    width, energy = said.number("frame_width"), energy_of(said)
    if pattern_pixel_rad is not None and width and energy is not None:
        size = wavelength_m(energy, radiation_of(said)) / (width * pattern_pixel_rad)
        said.give("object_pixel", size, f"{option} ({pattern_pixel_rad * 1e3:.6g} mrad a pixel)")


def complete(said: Description) -> None:
    """Add what follows from the pixel of the object, if the source or the user says it.

    It is wavelength · distance / (width · detector pixel). Of energy, distance and detector pixel the one that nobody
    says is computed. If only the energy is said, the detector pixel is taken as 100 µm: the far field depends on the
    quotient of distance and detector pixel alone. A pixel of the object that the user gives takes the place of the
    source's distance, or of its detector pixel if the user gives the distance too.
    """
    stated, width = said.about("object_pixel")[:1], said.number("frame_width")
    if not stated or not width or said.contradictions():
        return
    size, energy, distance, pixel = float(stated[0].value), energy_of(said), said.number("distance"), pixel_of(said)
    if stated[0].origin == "given" and energy is not None:
        distance, pixel = _given(said, "distance", distance), _given(said, "detector_pixel_x", pixel)
        if distance is None and pixel is None:
            pixel = pixel_of(said)
        _replace(said, size * width / wavelength_m(energy, radiation_of(said)), distance, pixel)
        return
    why = f"follows from the pixel of the object ({stated[0]})"
    if energy is None:
        if distance is not None and pixel is not None:
            said.assume("wavelength", size * width * pixel / distance, why)
        return
    wavelength = wavelength_m(energy, radiation_of(said))
    if pixel is None:
        pixel = SOME_PIXEL_M if distance is None else wavelength * distance / (width * size)
        text = why if distance is not None else f"{why}; only distance / pixel counts, so 100 µm"
        for axis in "xy":
            said.assume(f"detector_pixel_{axis}", pixel, text)
    if distance is None:
        said.assume("distance", size * width * pixel / wavelength, why)


def _given(said: Description, quantity: str, value: float | None) -> float | None:
    """`value`, if it is the user's."""
    found = said.about(quantity)
    return value if found and found[0].origin == "given" else None


def _replace(said: Description, quotient: float, distance: float | None, pixel: float | None) -> None:
    """Give the distance or the detector pixel of which the other is given or known; neither where both are given.

    `quotient` is distance / detector pixel, that is width · pixel of the object / wavelength.
    """
    why = f"follows from {said.about('object_pixel')[0].where}"
    if distance is not None and pixel is None:
        for axis in "xy":
            said.give(f"detector_pixel_{axis}", distance / quotient, why)
    elif distance is None:
        if pixel is None:
            pixel = SOME_PIXEL_M
            for axis in "xy":
                said.assume(f"detector_pixel_{axis}", pixel, f"{why}; only distance / pixel counts, so 100 µm")
        said.give("distance", pixel * quotient, why)


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
    """Size of a frame's pixel in metres, binning included. None if nothing is said of it."""
    found = _frame_pixels(said)
    return float(found[0].value) if found else None


def resolved(said: Description, quantity: str) -> Statement | None:
    """The statement that the value in force of energy, distance or pixel comes from."""
    if quantity == "detector_pixel_x":
        found = _frame_pixels(said)
    else:
        found = said.about(quantity) or (said.about("wavelength") if quantity == "energy" else [])
    return found[0] if found else None


def needed(value: float | None, name: str, where: str) -> float:
    """`value`, or ScanFileError with the option that gives it."""
    if value is None:
        raise ScanFileError(f"the file does not give {name}", where=where, remedy=f"give it with {_FLAGS[name]}")
    return value


def check_extent(positions_m: NDArray[np.float64], said: Description, pixel_m: float, width: int) -> None:
    """Check that the scan is of a size that a scan can have: the positions are not all within one object pixel, and
    the object has no more than a thousand million pixels.

    Parameters
    ----------
    positions_m
        [N, 2] positions, metres.
    pixel_m, width
        Size of an object pixel, metres, and the number of them along a pattern.

    Raises
    ------
    ContradictionError
        It is not; the error names the statements of which one is wrong by orders of magnitude.
    """
    extent = np.ptp(positions_m, axis=0)
    height_px, width_px = extent[1] / pixel_m + width, extent[0] / pixel_m + width
    if len(positions_m) > 1 and float(extent.max()) < pixel_m:
        what = f"all {len(positions_m)} positions lie within {extent.max():.3g} m, less than one object pixel"
    elif height_px * width_px > MOST_PIXELS:
        what = f"the scan of {extent[0]:.3g} m × {extent[1]:.3g} m is one of {height_px * width_px:.2g} pixels"
    else:
        return
    names = ("energy", "wavelength", "distance", "detector_pixel_x", "sensor_pixel_x", "binning_x", "position_unit_x")
    told = "; ".join(str(said.about(name)[0]) for name in names if said.about(name))
    raise ContradictionError(
        f"{what} of {pixel_m:.3g} m, which is impossible: {told}",
        where=said.source,
        remedy="one of them is in another unit than it says (keV and eV, mm and m), or the positions were not recorded",
    )


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


def _implausible_energy(said: Description) -> Contradiction | None:
    """An energy that no scan of this radiation is measured at, such as 300 V electrons or 300 keV photons."""
    energies = said.about("energy")[:1] or said.about("wavelength")[:1]
    radiations = said.about("radiation")[:1]
    try:
        energy, radiation = energy_of(said), radiation_of(said)
    except ScanFileError:
        return None
    if not energies or energy is None or not (remedy := implausible(energy, radiation)):
        return None
    if not radiations or radiations[0].origin == "assumed":
        radiations = [Statement("radiation", radiation, "what is taken where nobody says it", f"{radiation}s")]
    return Contradiction(energies[0].quantity, (energies[0], radiations[0]), remedy)


def _frame_pixels(said: Description) -> list[Statement]:
    """Width and height of a frame's pixel, as they are said, or as the sensor's pixel times the binning."""
    found = []
    for axis in "xy":
        name = f"detector_pixel_{axis}"
        frame, sensor = said.about(name)[:1], said.about(f"sensor_pixel_{axis}")[:1]
        found += frame
        if sensor and not (frame and frame[0].origin == "given"):
            binning = said.about(f"binning_{axis}")[:1]
            times = float(binning[0].value) if binning else 1.0
            written = f"{sensor[0].written} × binning {times:g} ({binning[0].where})" if binning else sensor[0].written
            found.append(Statement(name, float(sensor[0].value) * times, sensor[0].where, written, sensor[0].origin))
    return found


def _pixels(said: Description) -> Contradiction | None:
    """Pixels that are not square, or of which it is not said whether they are binned."""
    found = _frame_pixels(said)
    for other in found[1:]:
        unequal = _unequal(
            "detector_pixel_x", found[0], other, float(found[0].value), float(other.value), "detector_pixel_x"
        )
        if unequal is not None:
            return unequal
    return None


def _object_pixels(said: Description) -> Contradiction | None:
    stated, width = said.about("object_pixel")[:1], said.number("frame_width")
    energy, distance, pixel = energy_of(said), said.number("distance"), pixel_of(said)
    if not stated or not width or energy is None or distance is None or pixel is None:
        return None
    try:
        follows = wavelength_m(energy, str(said.value("radiation") or RADIATIONS[0])) * distance / (width * pixel)
    except GeometryError:
        return None
    other = Statement(
        "object_pixel", follows, "energy, distance and detector pixel", f"{follows:.6g} m by the geometry"
    )
    return _unequal("object_pixel", stated[0], other, float(stated[0].value), follows, "object_pixel")


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
    return Contradiction(quantity, (first, second), CORRECT)
