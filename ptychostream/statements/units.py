"""Units as files and streams spell them, and the value of each in SI (energies: electronvolts).

A unit that is unknown or not of the wanted dimension is an error, never a factor of one.
"""

from __future__ import annotations

import math
import unicodedata
from typing import Literal

from ptychostream.errors import UnitError

Dimension = Literal["length", "energy", "time", "angle", "inverse length"]

EnergyUnit = Literal["eV", "keV", "V", "kV"]
"""V and kV are units of an accelerating voltage: the radiation is electrons."""
JOULE_PER_EV = 1.602176634e-19
"""The elementary charge, coulombs (SI 2019, exact)."""

_PREFIXES = (
    ("", "", 1.0),
    ("k", "kilo", 1e3),
    ("M", "mega", 1e6),
    ("G", "giga", 1e9),
    ("c", "centi", 1e-2),
    ("m", "milli", 1e-3),
    ("u", "micro", 1e-6),
    ("μ", "micro", 1e-6),  # U+03BC, which the normal form of the micro sign U+00B5 is
    ("n", "nano", 1e-9),
    ("p", "pico", 1e-12),
    ("f", "femto", 1e-15),
)
_BASES: dict[Dimension, tuple[tuple[str, tuple[str, ...], float], ...]] = {
    "length": (("m", ("meter", "metre", "meters", "metres"), 1.0),),
    "energy": (
        ("eV", ("electronvolt", "electronvolts", "electron volt", "electron volts"), 1.0),
        ("J", ("joule", "joules"), 1 / JOULE_PER_EV),
    ),
    "time": (("s", ("sec", "second", "seconds"), 1.0),),
    "angle": (("rad", ("radian", "radians"), 1.0),),
    "inverse length": (),
}
_SPECIAL: dict[Dimension, dict[str, float]] = {
    "length": {
        "\u00c5": 1e-10, "A": 1e-10, "Ang": 1e-10, "angstrom": 1e-10, "angstroms": 1e-10,
        "ångström": 1e-10, "micron": 1e-6, "microns": 1e-6, "in": 0.0254, "inch": 0.0254,
    },
    "energy": {"V": 1.0, "kV": 1e3},
    "time": {"min": 60.0, "minute": 60.0, "minutes": 60.0, "h": 3600.0, "hour": 3600.0, "hours": 3600.0},
    "angle": {"deg": 0.017453292519943295, "degree": 0.017453292519943295, "degrees": 0.017453292519943295,
              "°": 0.017453292519943295},
    "inverse length": {},
}  # fmt: skip
_LENGTHS_SHOWN = (("m", 1.0, 1e-1), ("mm", 1e-3, 1e-3), ("µm", 1e-6, 1e-6), ("nm", 1e-9, 1e-9), ("Å", 1e-10, 1e-11))
"""Unit, its metres, and the smallest length that is shown in it."""
_NO_UNIT = frozenset({"", "none", "undefined", "unknown", "null", "(null)", "n/a", "na", "-", "?", "a.u.", "arb"})
"""Texts that programs write where they know no unit."""


def is_unit(text: str) -> bool:
    """Whether the text says a unit at all; an empty one, `undefined` and their kin do not."""
    return _cleaned(text).lower() not in _NO_UNIT


def factor(text: str, dimension: Dimension, where: str) -> float:
    """The value of one `text` in SI (energies: eV).

    Parameters
    ----------
    text
        The unit as it is written: abbreviated or spelled out, `b'…'` and spaces around it removed.
    dimension
        What the quantity is.
    where
        What has this unit, for the message.

    Raises
    ------
    UnitError
        The unit is unknown, or of another dimension.
    """
    unit = _cleaned(text)
    table = _TABLES[dimension]
    found = table.get(unit)
    if found is None:
        found = _ANY_CASE[dimension].get(unit.lower())
    if found is None:
        other = next((name for name, units in _TABLES.items() if unit in units), None)
        what = f"is in {unit!r}, a unit of {other}, where one of {dimension} is needed" if other else (
            f"is in the unknown unit {unit!r}"
        )  # fmt: skip
        raise UnitError(what, where=where, remedy=f"write its units as one of {', '.join(_SHOWN[dimension])}")
    return found


def contradiction(name: str, text: str, configured: str, dimension: Dimension) -> str:
    """What is wrong where `name` states a unit that is not the configured one; empty: nothing.

    An unknown text, such as an operator's own word, cannot be compared, and contradicts nothing; nor does a unit where
    none is configured.
    """
    unit = _cleaned(text)
    if not configured or not is_unit(unit) or not any(unit in table for table in _TABLES.values()):
        return ""
    found = _TABLES[dimension].get(unit)
    if found is not None and abs(found - factor(configured, dimension, "")) <= 1e-9 * found:
        return ""
    return f"{name} says that its unit is {text}, and {configured} is configured"


def energy_ev(value: object, unit: EnergyUnit) -> float | None:
    """The energy in eV that an attribute or a PV gives in `unit`; None if the value is no positive finite number."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value <= 0:
        return None
    return float(value) * factor(unit, "energy", "")


def length_in_words(length_m: float, digits: int = 4) -> str:
    """A length in the unit that suits it, pm to m. Between 10 pm and 1 nm that is the ångström.

    Examples
    --------
    >>> [length_in_words(length) for length in (1.9687e-12, 4.649e-11, 9.2e-8, -12.4e-6, 0.9)]
    ['1.969 pm', '0.4649 Å', '92 nm', '-12.4 µm', '0.9 m']
    """
    for unit, value, from_m in _LENGTHS_SHOWN:
        if abs(length_m) >= from_m * (1 - 0.5 * 10.0**-digits):
            return f"{length_m / value:.{digits}g} {unit}"
    return f"{length_m * 1e12:.{digits}g} pm"


def _cleaned(text: str) -> str:
    unit = unicodedata.normalize("NFKC", text).strip().strip("\0").strip()
    if len(unit) >= 3 and unit[:2] in ("b'", 'b"') and unit[-1] == unit[1]:
        unit = unit[2:-1].strip()  # a bytes object that was written as text
    return unit.strip("[]()").strip() if unit[:1] + unit[-1:] in ("[]", "()") and unit.lower() not in _NO_UNIT else unit


def _table(dimension: Dimension) -> dict[str, float]:
    units = dict(_SPECIAL[dimension])
    for symbol, names, value in _BASES[dimension]:
        for prefix, spelled, scale in _PREFIXES:
            units[prefix + symbol] = scale * value
            units.update({spelled + name: scale * value for name in names})
    return units


def _inverse() -> dict[str, float]:
    found: dict[str, float] = {}
    for unit, value in _table("length").items():
        for form in ("1/{}", "1 / {}", "{}^-1", "{}-1", "/{}", "{}\u22121", "{}**-1"):  # \u2212: the minus of ⁻¹
            found[form.format(unit)] = 1 / value
    return found


_TABLES: dict[Dimension, dict[str, float]] = {
    "length": _table("length"),
    "energy": _table("energy"),
    "time": _table("time"),
    "angle": _table("angle"),
    "inverse length": _inverse(),
}


def _any_case(units: dict[str, float]) -> dict[str, float]:
    """Units by their lower case, but for those that two units share (mm and Mm)."""
    found: dict[str, set[float]] = {}
    for unit, value in units.items():
        found.setdefault(unit.lower(), set()).add(value)
    return {unit: values.pop() for unit, values in found.items() if len(values) == 1}


_ANY_CASE = {dimension: _any_case(units) for dimension, units in _TABLES.items()}
_SHOWN: dict[Dimension, tuple[str, ...]] = {
    "length": ("m", "mm", "um", "nm", "pm", "angstrom"),
    "energy": ("eV", "keV", "J"),
    "time": ("s", "ms", "us", "ns"),
    "angle": ("rad", "mrad", "deg"),
    "inverse length": ("1/m", "1/nm", "1/angstrom"),
}
