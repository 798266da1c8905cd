"""What a record says: value, alarm and time, out of an update of p4p."""

from __future__ import annotations

import math
from dataclasses import dataclass

from p4p import Value

from ptychostream.pva.reading import posix_time

Plain = float | int | str | bool | None
FIELDS = "field(value,alarm,timeStamp,display)"
"""What is read of a record, as in a pvRequest."""
DISCONNECTED = 4
"""Severity of a record that does not answer; those of EPICS are 0 to 3."""
LONGEST_TEXT = 4096


@dataclass(frozen=True)
class Reading:
    """One record's state. A choice's value is its text, and `index` its number. NaN and infinity are None."""

    value: Plain
    severity: int
    alarm: str
    time_s: float
    units: str
    index: int | None = None

    @property
    def trouble(self) -> int:
        """The severity that a person should see: 0 for a record that only has no value yet, or does not answer."""
        return 0 if self.alarm.startswith("UDF") or self.severity == DISCONNECTED else self.severity


def reading_of(value: Value) -> Reading | None:
    """The reading of an update without an NT handler. None: it has no scalar value."""
    try:
        held, index = value["value"], None
        if isinstance(held, Value):
            index = int(held["index"])
            choices = held["choices"]
            held = str.__str__(choices[index]) if 0 <= index < len(choices) else str(index)
        plain = _plain(held)
        return Reading(
            plain,
            int(value["alarm.severity"]),
            str.__str__(value["alarm.message"])[:LONGEST_TEXT],
            posix_time(value["timeStamp.secondsPastEpoch"], value["timeStamp.nanoseconds"]),
            str.__str__(value.get("display.units") or "")[:16],
            index,
        )
    except (LookupError, TypeError, ValueError, AttributeError):
        return None


def _plain(held: object) -> Plain:
    if isinstance(held, str):
        return str.__str__(held)[:LONGEST_TEXT]
    if isinstance(held, bool | int):
        return held
    if isinstance(held, float):
        return held if math.isfinite(held) else None
    raise TypeError(f"no scalar: {type(held).__name__}")
