"""The PVs that say when a scan runs, and which."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ptychostream.doctor.finding import Finding, fail, ok
from ptychostream.frames.idle import is_idle
from ptychostream.frames.scan_id import id_text, plain
from ptychostream.ioc.config.settings import ScanSettings


def asked(settings: ScanSettings) -> dict[str, str]:
    """The PVs by their key, as `ptychostream.recording.record_metadata.read_pvs` takes them."""
    named = {
        "active_pv": (settings.active_pv, settings.active_provider),
        "id_pv": (settings.id_pv, settings.id_provider),
    }
    return {key: f"{provider}://{name}" for key, (name, provider) in named.items() if name}


def check_scan_pvs(settings: ScanSettings, values: Mapping[str, Any]) -> Iterator[Finding]:
    """The findings, from the values that answered, by their key."""
    for key, address in asked(settings).items():
        provider, _, name = address.partition("://")
        if key not in values:
            variable = "EPICS_CA_ADDR_LIST" if provider == "ca" else "EPICS_PVA_ADDR_LIST"
            remedy = f"start its IOC, put its host into {variable}, or correct scan.{key} and its provider"
            yield fail("scan PV", f"{name} does not answer over {provider.upper()}", remedy)
        elif key == "active_pv":
            value = plain(values[key])
            yield ok("scan PV", f"{name} is {value}: {'no scan runs' if is_idle(value) else 'a scan runs'}")
        else:
            yield ok("scan PV", f"{name} is {id_text(values[key])}")
