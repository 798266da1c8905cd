"""Finds completed scans in the values of a scan-complete PV. Pure functions and a class without sockets or clock."""

from __future__ import annotations

import math
from dataclasses import replace
from enum import Enum
from typing import Any

from ptychostream.frames.idle import is_idle
from ptychostream.hpc_agent.scans.collect import ScanEvent

KINDS = ("rising", "falling", "counter")


class Transitions:
    """Finds transitions in the values of the scan-complete PV.

    Parameters
    ----------
    kind
        "rising": 0 → 1 completes a scan; "falling": 1 → 0 does, as with a busy record; "counter": any change does.

    Examples
    --------
    >>> transitions = Transitions("falling")
    >>> [transitions.take(value) for value in ("Acquiring", "Done", "Done", "Acquiring", "Done")]
    [False, True, False, False, True]
    """

    def __init__(self, kind: str) -> None:
        assert kind in KINDS
        self._kind = kind
        self._last: object = None
        self.missed = 0
        """Transitions of a counter that were not seen one by one."""

    def take(self, value: object) -> bool:
        """Take the PV's value; True at a transition. The first value is no transition; see `complete`."""
        last, self._last = self._last, value
        if last is None:
            return False
        if self._kind != "counter":
            before, now = is_idle(last), is_idle(value)
            return before != now and now == (self._kind == "falling")
        if value == last:
            return False
        step = int(_number(value) - _number(last)) if _finite(value) and _finite(last) else 1
        if step > 1:
            self.missed += step - 1
        return value != 0  # an IOC that starts again counts from 0

    def complete(self, before: object) -> bool:
        """Whether the scan that the PVs name is complete, from the value alone; used after a lost connection.

        Parameters
        ----------
        before
            The last value before the connection was lost; None: unknown. With a counter only a change counts.
        """
        if self._last is None:
            return False
        if self._kind == "counter":
            return before is not None and self._last not in (before, 0)
        return is_idle(self._last) == (self._kind == "falling")

    @property
    def value(self) -> object:
        """The value taken last; None before the first."""
        return self._last


class Coherence(Enum):
    """Whether the PVs that were read after a transition all belong to the scan that it completed."""

    FRESH = "fresh"
    STALE_FILE = "the file's name is the scan's before"
    REPEATED = "the id is the scan's before, the file is not"
    DUPLICATE = "nothing has changed"
    NAMELESS = "no scan is named"


def coherence(now: ScanEvent, before: ScanEvent | None) -> Coherence:
    """Compare the values of the PVs with the scan that was reported last (None: no scan yet)."""
    if not (now.scan_id or now.file):
        return Coherence.NAMELESS
    if before is None:
        return Coherence.FRESH
    new_id = bool(now.scan_id) and now.scan_id != before.scan_id
    new_file = bool(now.file) and now.file != before.file
    if new_id:
        return Coherence.FRESH if new_file or not now.file else Coherence.STALE_FILE
    if new_file:
        return Coherence.REPEATED if now.scan_id else Coherence.FRESH
    return Coherence.DUPLICATE


def to_tell(now: ScanEvent, before: ScanEvent | None) -> ScanEvent | None:
    """The event to report when there is no more time to wait for late PVs; None: a duplicate, or no name.

    A file name that is still the last scan's is left out: its frames would be processed twice, under two names.
    """
    found = coherence(now, before)
    if found in (Coherence.DUPLICATE, Coherence.NAMELESS):
        return None
    return replace(now, file="") if found is Coherence.STALE_FILE else now


def frame_count(value: object) -> int | None:
    """The expected number of frames; None if the value is no positive number."""
    if not _finite(value) or _number(value) < 1:
        return None
    return int(_number(value))


def _finite(value: object) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def _number(value: Any) -> float:
    return float(value)
