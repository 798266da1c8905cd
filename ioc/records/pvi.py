"""PVI: the structure from which ophyd-async builds a device, served over PV Access.

`<prefix>PVI` names a sub-device for each group of records; `<prefix><group>:PVI` names its signals. A setpoint with its
readback is one signal, and a command can be triggered.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from p4p import Type, Value
from p4p.server import StaticProvider
from p4p.server.raw import SharedPV

from ptychostream.ioc.records.database import RecordInfo
from ptychostream.ioc.records.templates import snake

Entries = Mapping[str, Mapping[str, str]]
_OPERATORS = ("OPERATOR", "MODEL")


def pvi_structures(
    prefix: str, groups: Mapping[str, Iterable[RecordInfo]], images: Iterable[str]
) -> dict[str, Entries]:
    """What each PVI channel says: names of signals or sub-devices, each with its channels.

    Parameters
    ----------
    prefix
        Of the channels.
    groups
        The records of each group.
    images
        Names of the images that are served.
    """
    made: dict[str, Entries] = {
        f"{prefix}{group}:PVI": _signals(prefix, group, list(infos)) for group, infos in groups.items()
    }
    made[f"{prefix}pictures:PVI"] = {snake(name): {"r": f"{prefix}{name}"} for name in images}
    devices = {channel.removeprefix(prefix).removesuffix(":PVI"): {"d": channel} for channel in made}
    return {**made, f"{prefix}PVI": devices}


def _signals(prefix: str, group: str, infos: list[RecordInfo]) -> Entries:
    names = {info.name for info in infos}
    entries: dict[str, dict[str, str]] = {}
    for info in infos:
        short = info.name.removeprefix(prefix)
        name, back = snake(short.removesuffix("_RBV")).removeprefix(f"{group}_"), f"{info.name}_RBV"
        if short.endswith("_RBV") and info.name.removesuffix("_RBV") in names:
            continue
        if info.fields.get("ASG") not in _OPERATORS:
            entries[name] = {"r": info.name}
        elif info.type == "bo" and info.fields.get("ZNAM") == "Done":
            entries[name] = {"x": info.name}
        else:
            entries[name] = {"r": back, "w": info.name} if back in names else {"rw": info.name}
    return entries


def provider(structures: Mapping[str, Entries]) -> StaticProvider:
    """Serves the structures, read-only."""
    made = StaticProvider("pvi")
    for channel, entries in structures.items():
        made.add(channel, SharedPV(initial=_value(channel, entries)))
    return made


def _value(channel: str, entries: Entries) -> Value:
    fields = [(name, ("S", None, [(key, "s") for key in entry])) for name, entry in entries.items()]
    kind = Type(
        [("descriptor", "s"), ("value", ("S", "structure", fields))],
        id="epics:nt/NTPVI:1.0",
    )
    return Value(kind, {"descriptor": channel, "value": {name: dict(entry) for name, entry in entries.items()}})
