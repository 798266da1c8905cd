"""The kinds of radiation, and the energies at which scans are measured with each."""

from __future__ import annotations

from typing import Literal

from ptychostream.errors import ConfigError

Radiation = Literal["photon", "electron"]
RADIATIONS: tuple[Radiation, Radiation] = ("photon", "electron")
ENERGIES_EV: dict[str, tuple[float, float]] = {"photon": (10.0, 100e3), "electron": (2e3, 1e6)}
"""Lowest and highest energy that is believed, eV; for electrons the accelerating voltage, V. Ptychography by X-rays
ends below 50 keV. Electron microscopes begin at some kV in scanning ones and end at 1 MV."""
VOLTS = ("V", "kV")
"""Units that only an accelerating voltage has."""
_REMEDIES = {
    "photon": "electrons are --radiation electron, or --kv with the voltage; a photon energy is in eV, or has its unit",
    "electron": "an accelerating voltage is in V: 300 kV is 300e3; give it with --kv, in kV",
}


def implausible(energy_ev: float, radiation: str) -> str:
    """What to do about an energy that no scan of this radiation is measured at. "" if there is nothing wrong.

    Parameters
    ----------
    energy_ev
        Photon energy in eV, or accelerating voltage in V.
    radiation
        One of `RADIATIONS`. For another one nothing is said.
    """
    low, high = ENERGIES_EV.get(radiation, (0.0, float("inf")))
    return "" if low <= energy_ev <= high else _REMEDIES[radiation]


def check_energy(energy_ev: float, radiation: str, where: str) -> None:
    """Raise ConfigError for an energy that no scan of this radiation is measured at."""
    if remedy := implausible(energy_ev, radiation):
        raise ConfigError(f"{beam_in_words(energy_ev, radiation)}, which is implausible", where=where, remedy=remedy)


def of_unit(unit: str, radiation: Radiation | None = None) -> Radiation | None:
    """The radiation of energies in `unit`: electrons for V and kV, else `radiation`."""
    return "electron" if unit in VOLTS else radiation


def beam_in_words(energy_ev: float, radiation: str) -> str:
    """Energy and radiation for people.

    Examples
    --------
    >>> beam_in_words(300e3, "electron")
    '300 kV electrons'
    >>> beam_in_words(8800.0, "photon")
    '8.8 keV photons'
    >>> beam_in_words(300.0, "electron")
    '300 V electrons'
    """
    unit = "V" if radiation == "electron" else "eV"
    thousands, prefix = (energy_ev / 1e3, "k") if energy_ev >= 1e3 else (energy_ev, "")
    return f"{thousands:.6g} {prefix}{unit} {radiation}s"
