"""Every readback: of the settings in force, of the pipeline's figures, and of the other parts."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from ptychostream.ioc.config.setpoints import Setpoint, setpoints
from ptychostream.ioc.handlers import Parts
from ptychostream.ioc.readbacks_cluster import CLUSTER
from ptychostream.ioc.readbacks_model import MODEL
from ptychostream.ioc.readbacks_positions import POSITIONS
from ptychostream.ioc.readbacks_refine import REFINE
from ptychostream.ioc.readbacks_scans import SCANS
from ptychostream.ioc.readbacks_stream import STREAM
from ptychostream.ioc.records.records import Value
from ptychostream.ioc.view import Readback, View, grouped, of_figures
from ptychostream.plugins.flow.snapshot import Snapshot


def readbacks(kind: type[Snapshot] = Snapshot) -> list[Readback]:
    """Every declared readback but those of settings, for a pipeline whose snapshots are of `kind`."""
    return [*of_figures(kind), *grouped(STREAM, MODEL, POSITIONS, SCANS, REFINE, CLUSTER)]


def values(view: View, shown: Iterable[Readback]) -> dict[str, Value]:
    """Values of the settings in force and of these readbacks, by record."""
    settings = view.parts.settings
    known = (one for one in setpoints(type(settings)).values() if one.setting.readback)
    return {
        **{f"{one.record}_RBV": _shown(one, view.parts) for one in known},
        **{one.record: one.value(view) for one in shown},
    }


def _shown(one: Setpoint, parts: Parts) -> Value:
    """The setting in force. A path is shown as it was put, so that "/data/" is not another text than "/data"."""
    value, typed = one.declared.value(parts.settings), parts.typed.get(one.record, "")
    return typed if typed and Path(typed) == value else one.shown(value)
