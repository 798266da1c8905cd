"""The records that an IOC has, read from the EPICS templates that this package installs.

The templates follow from the declarations in Python (`ptychostream.ioc.declarations`), so there is no list of records
here. EPICS base is not needed to read them.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import cache
from typing import Any

from ptychostream.db import templates

NUMBERS = frozenset({"ai", "ao", "calc", "longin", "longout", "int64in", "int64out"})
CHOICES = frozenset({"bi", "bo", "mbbi", "mbbo"})


@dataclass(frozen=True)
class Entry:
    """What the templates say of one record.

    Attributes
    ----------
    name
        Without the prefix.
    group
        The template's name without `_declared`.
    kind
        EPICS record type.
    about, unit
        DESC and EGU. The unit is empty for a pure number.
    setpoint
        Whether clients may write it.
    low, high
        Display limits, or None.
    """

    name: str
    group: str
    kind: str
    about: str
    unit: str
    setpoint: bool
    low: float | None = None
    high: float | None = None

    @property
    def number(self) -> bool:
        """Whether its value is a number."""
        return self.kind in NUMBERS

    @property
    def choice(self) -> bool:
        """Whether its value is one of some texts."""
        return self.kind in CHOICES

    def plain(self) -> dict[str, Any]:
        """The entry as JSON can hold it."""
        return {**asdict(self), "number": self.number, "choice": self.choice}


def read_template(text: str, group: str) -> list[Entry]:
    """The entries of a template's text. Arrays of numbers, which no figure is, are left out."""
    found = []
    for kind, name, fields, info in templates.parts(text):
        if kind == "waveform" and fields.get("FTVL") not in ("CHAR", "UCHAR"):
            continue
        low, high = _number(fields.get("LOPR")), _number(fields.get("HOPR"))
        found.append(
            Entry(
                name,
                group,
                kind,
                fields.get("DESC", ""),
                "" if fields.get("EGU") == "1" else fields.get("EGU", ""),
                fields.get("ASG") not in ("READONLY", None) or "python:put" in info,
                low if low != high else None,
                high if low != high else None,
            )
        )
    return found


@cache
def catalog() -> dict[str, Entry]:
    """Every record by its name. A setpoint whose readback is there is left out: the readback shows what is in force."""
    entries: dict[str, Entry] = {}
    for path in sorted(templates.FOLDER.glob("*.template")):
        for entry in read_template(path.read_text(encoding="utf-8"), path.stem.removesuffix("_declared")):
            entries[entry.name] = entry
    return {name: entry for name, entry in entries.items() if f"{name}_RBV" not in entries}


def _number(text: str | None) -> float | None:
    try:
        return float(text) if text is not None else None
    except ValueError:
        return None
