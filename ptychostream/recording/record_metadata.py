"""Metadata of a scan's file, read from PVs as the scan begins."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal

import numpy as np
from p4p import Value
from p4p.client.thread import Context
from pydantic import Field, model_validator

from ptychostream.config import Settings
from ptychostream.scans.scan_geometry import SOME_PIXEL_M
from ptychostream.statements.radiation import VOLTS, Radiation, beam_in_words, check_energy, implausible, of_unit
from ptychostream.statements.units import EnergyUnit, energy_ev

_log = logging.getLogger(__name__)
_CA = "ca://"
_asking_ca = threading.Lock()  # aioca closes the channels of all threads at once
_M = {"m": 1.0, "mm": 1e-3}


class MetadataSettings(Settings):
    """Geometry and further values, each by number or by PV.

    Attributes
    ----------
    energy_ev, distance_m, detector_pixel_m
        Values that are known beforehand. For electrons the energy is the accelerating voltage, V.
    radiation
        "photon" or "electron"; None: electrons where `energy_unit` is V or kV, else photons.
    pattern_pixel_rad
        Angle of a pixel of the pattern. The distance follows from it and the detector pixel (100 µm, if none is given).
    energy_pv, distance_pv
        PVs to read them from as each scan begins, in `energy_unit` and `distance_unit`. A PV's name is one of PVA,
        or with `ca://` before it one of Channel Access.
    pvs
        Further PVs by the name under which the file keeps their value.
    timeout_s
        Seconds that a PV may take to answer. One that does not answer is left out, with a warning.
    """

    radiation: Radiation | None = None
    energy_ev: float | None = Field(None, gt=0)
    energy_pv: str = ""
    energy_unit: EnergyUnit = "eV"
    distance_m: float | None = Field(None, gt=0)
    distance_pv: str = ""
    distance_unit: Literal["m", "mm"] = "m"
    detector_pixel_m: float | None = Field(None, gt=0)
    pattern_pixel_rad: float | None = Field(None, gt=0)
    pvs: dict[str, str] = {}
    timeout_s: float = Field(2.0, gt=0)

    @model_validator(mode="after")
    def _plausible(self) -> MetadataSettings:
        if self.radiation == "photon" and self.energy_unit in VOLTS:
            raise ValueError(f"energy_unit {self.energy_unit} is one of electrons, and radiation says photon")
        if self.energy_ev is not None:
            check_energy(self.energy_ev, self.beam, "energy_ev")
        if self.pattern_pixel_rad is not None and (self.distance_m is not None or self.distance_pv):
            raise ValueError("pattern_pixel_rad says the distance: leave out distance_m and distance_pv")
        return self

    @property
    def beam(self) -> Radiation:
        """The radiation."""
        return of_unit(self.energy_unit, self.radiation) or "photon"

    def read(self) -> tuple[dict[str, float | None], dict[str, Any]]:
        """Ask the PVs: the geometry, None where unknown, and the metadata."""
        deadline = time.monotonic() + self.timeout_s
        names = {"energy": self.energy_pv, "distance": self.distance_pv}
        names.update({f"pv {name}": pv for name, pv in self.pvs.items()})
        found = read_pvs({name: pv for name, pv in names.items() if pv}, deadline)
        energy, distance = self._energy_ev(found), _number(found, "distance")
        pixel_m = self.detector_pixel_m
        distance_m = self.distance_m if distance is None else distance * _M[self.distance_unit]
        if self.pattern_pixel_rad is not None:
            pixel_m = pixel_m or SOME_PIXEL_M
            distance_m = pixel_m / self.pattern_pixel_rad
        geometry = {
            "energy_ev": self.energy_ev if energy is None else energy,
            "distance_m": distance_m,
            "detector_pixel_m": pixel_m,
        }
        return geometry, {name: found[f"pv {name}"] for name in self.pvs if f"pv {name}" in found}

    def _energy_ev(self, found: Mapping[str, Any]) -> float | None:
        value = found.get("energy")
        known = energy_ev(value, self.energy_unit)
        if value is not None and known is None:
            _log.warning("the energy PV gives %r, which is left out", value)
        if known is not None and (remedy := implausible(known, self.beam)):
            what = beam_in_words(known, self.beam)
            _log.warning("the energy PV gives %s, which is implausible and left out: %s", what, remedy)
            return None
        return known


def read_pvs(names: Mapping[str, str], deadline: float) -> dict[str, Any]:
    """Values by key; those that do not answer by `deadline` (monotonic) are left out, with a warning.

    They are all asked before the first answer is waited for.
    """
    timeout_s = max(0.1, deadline - time.monotonic())
    by_ca = {key: name[len(_CA) :] for key, name in names.items() if name.startswith(_CA)}
    by_pva = {key: name.removeprefix("pva://") for key, name in names.items() if key not in by_ca}
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(_get_ca, list(by_ca.values()), timeout_s)
        answers = dict(zip(by_pva, _get_pva(list(by_pva.values()), timeout_s), strict=True))
        answers.update(zip(by_ca, asked.result(), strict=True))
    for key in [key for key, answer in answers.items() if isinstance(answer, Exception)]:
        _log.warning("%s was not read and is left out: %s", names[key], answers.pop(key))
    return {key: answer.tolist() if hasattr(answer, "tolist") else answer for key, answer in answers.items()}


def _get_pva(names: list[str], timeout_s: float) -> list[Any]:
    """The PVs' values, or for each the exception that says why not."""
    if not names:
        return []
    with Context("pva", nt=False) as context:
        answers = context.get(names, request=["field(value)"] * len(names), timeout=timeout_s, throw=False)
    return [_value(answer) for answer in answers]


def _value(answer: Any) -> Any:
    if not isinstance(answer, Value):
        return answer
    if "value" not in answer:
        return KeyError("value")
    value = answer["value"]
    if isinstance(value, Value) and "choices" in value:
        return value["choices"][value["index"]]
    return value.todict() if isinstance(value, Value) else value


def _get_ca(names: list[str], timeout_s: float) -> list[Any]:
    """As `_get_pva`."""
    if not names:
        return []
    import aioca  # loads libca: only where a PV of Channel Access is asked

    async def get() -> list[Any]:
        answers = await aioca.caget(names, datatype=aioca.DBR_ENUM_STR, timeout=timeout_s, throw=False)
        aioca.purge_channel_caches()  # before the event loop ends: channels call it back
        return [_plain(answer) if answer.ok else TimeoutError(str(answer)) for answer in answers]

    with _asking_ca:
        return asyncio.run(get())


def _plain(value: Any) -> Any:
    """Without aioca's subclass of the type."""
    kind = next((kind for kind in (str, int, float) if isinstance(value, kind)), None)
    return kind(value) if kind is not None else np.asarray(value)


def _number(found: Mapping[str, Any], key: str) -> float | None:
    value = found.get(key)
    if isinstance(value, int | float) and value > 0:
        return float(value)
    if value is not None:
        _log.warning("the %s PV gives %r, which is left out", key, value)
    return None
