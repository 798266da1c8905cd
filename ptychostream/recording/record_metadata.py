"""What a scan's file says beside its frames, asked of PVs as the scan begins."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from typing import Any, Literal

import pvaccess as pva
from pydantic import Field

from ptychostream.config import Settings

_log = logging.getLogger(__name__)
_EV = {"eV": 1.0, "keV": 1e3}
_M = {"m": 1.0, "mm": 1e-3}


class MetadataSettings(Settings):
    """Geometry and further values, each by number or by PV.

    Attributes
    ----------
    energy_ev, distance_m, detector_pixel_m
        Where they are known beforehand.
    energy_pv, distance_pv
        PVs to read them from as each scan begins, in `energy_unit` and `distance_unit`. A PV's name is one of PVA,
        or with `ca://` before it one of Channel Access.
    pvs
        Further PVs by the name under which the file keeps their value.
    timeout_s
        For how long a PV may take to answer. One that does not is left out, with a warning.
    """

    energy_ev: float | None = Field(None, gt=0)
    energy_pv: str = ""
    energy_unit: Literal["eV", "keV"] = "eV"
    distance_m: float | None = Field(None, gt=0)
    distance_pv: str = ""
    distance_unit: Literal["m", "mm"] = "m"
    detector_pixel_m: float | None = Field(None, gt=0)
    pvs: dict[str, str] = {}
    timeout_s: float = Field(2.0, gt=0)

    def read(self) -> tuple[dict[str, float | None], dict[str, Any]]:
        """Ask the PVs: the geometry, None where unknown, and the metadata."""
        deadline = time.monotonic() + self.timeout_s
        names = {"energy": self.energy_pv, "distance": self.distance_pv}
        names.update({f"pv {name}": pv for name, pv in self.pvs.items()})
        found = read_pvs({name: pv for name, pv in names.items() if pv}, deadline)
        energy, distance = _number(found, "energy"), _number(found, "distance")
        geometry = {
            "energy_ev": self.energy_ev if energy is None else energy * _EV[self.energy_unit],
            "distance_m": self.distance_m if distance is None else distance * _M[self.distance_unit],
            "detector_pixel_m": self.detector_pixel_m,
        }
        return geometry, {name: found[f"pv {name}"] for name in self.pvs if f"pv {name}" in found}


def read_pvs(names: Mapping[str, str], deadline: float) -> dict[str, Any]:
    """Values by key; those that do not answer by `deadline` (monotonic) are left out, with a warning.

    They are all asked before the first answer is waited for.
    """
    channels = {key: _channel(name) for key, name in names.items()}
    found: dict[str, Any] = {}
    for key, channel in channels.items():
        channel.setTimeout(max(0.1, deadline - time.monotonic()))
        try:
            value = channel.get("field(value)")["value"]
        except (pva.PvaException, KeyError) as error:
            _log.warning("%s was not read and is left out: %s", names[key], error)
            continue
        if isinstance(value, dict) and "choices" in value:
            value = value["choices"][value["index"]]
        found[key] = value.tolist() if hasattr(value, "tolist") else value
    return found


def _channel(name: str) -> pva.Channel:
    scheme, _, rest = name.rpartition("://")
    return pva.Channel(rest, pva.CA if scheme == "ca" else pva.PVA)


def _number(found: Mapping[str, Any], key: str) -> float | None:
    value = found.get(key)
    if isinstance(value, int | float) and value > 0:
        return float(value)
    if value is not None:
        _log.warning("the %s PV gives %r, which is left out", key, value)
    return None
