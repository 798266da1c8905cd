"""The records of db/, read from the templates as they are committed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from ptychostream.db import templates

BEAMLINE = "beamline.db"


@dataclass(frozen=True)
class Record:
    """A record as its template describes it; `name` without the prefix, in which `group` it is."""

    name: str
    type: str
    group: str
    fields: Mapping[str, str]
    info: Mapping[str, str]

    @property
    def about(self) -> str:
        """Its description."""
        return self.fields["DESC"]

    @property
    def unit(self) -> str:
        return self.fields.get("EGU", "")

    @property
    def is_text(self) -> bool:
        """Whether it is a long text: a waveform of characters."""
        return self.fields.get("FTVL") == "CHAR" or self.type == "lsi"

    @property
    def is_command(self) -> bool:
        """Whether a 1 does something, and it goes back to 0 by itself."""
        return self.type == "bo" and self.fields.get("ZNAM") == "Done"

    @property
    def is_setpoint(self) -> bool:
        """Whether operators write it."""
        return self.fields.get("ASG", "OPERATOR") in ("OPERATOR", "MODEL") and self.type in _WRITTEN

    @property
    def states(self) -> list[tuple[int, str, str]]:
        """Number, name and severity of each state; empty for other types."""
        fields = self.fields
        if self.type in ("bi", "bo"):
            pairs = (("ZNAM", "ZSV"), ("ONAM", "OSV"))
            return [(n, fields[name], fields.get(sv, "NO_ALARM")) for n, (name, sv) in enumerate(pairs)]
        return [
            (number, fields[f"{short}ST"], fields.get(f"{short}SV", "NO_ALARM"))
            for number, short in enumerate(templates.STATES)
            if f"{short}ST" in fields
        ]

    @property
    def alarms(self) -> bool:
        """Whether it can have an alarm severity of its own."""
        return any(value in ("MINOR", "MAJOR") for name, value in self.fields.items() if name != "UDFS")


_WRITTEN = ("ao", "bo", "int64out", "longout", "mbbo", "stringout", "waveform")


def read_template(path: Path, group: str) -> Iterator[Record]:
    """The records of one template."""
    for kind, name, fields, info in templates.parts(path.read_text(encoding="utf-8")):
        yield Record(name, kind, group, fields, info)


def database() -> dict[str, Record]:
    """Every record of the IOC by its name, in the order of the groups."""
    records = (
        record for group in templates.GROUPS for path in templates.paths(group) for record in read_template(path, group)
    )
    return {record.name: record for record in records}


def beamline() -> dict[str, Record]:
    """The records of the simulated beamline by name."""
    return {record.name: record for record in read_template(templates.FOLDER / BEAMLINE, "beamline")}
