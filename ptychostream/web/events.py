"""What happened: changes of choices, texts and alarms, the newest of them, in order."""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import asdict, dataclass
from typing import Any

MOST = 1000
_SAME_S = 1.0
"""A record that changes again within this time replaces its last event: a text with a counter would fill the list."""
LONGEST_TEXT = 300


@dataclass(frozen=True)
class Event:
    """Something that happened.

    Attributes
    ----------
    number
        Counts up. An event that replaces earlier ones of its record has the number of the first in `replaces`.
    time_s
        POSIX seconds.
    record, group
        The record and its group; empty for the IOC itself.
    text
        What happened, in words.
    severity
        EPICS's alarm severity, 0 to 3; 4: disconnected.
    """

    number: int
    time_s: float
    record: str
    group: str
    text: str
    severity: int
    replaces: int = 0


class Events:
    """The newest events. Any thread may add one."""

    def __init__(self) -> None:
        self._events: deque[Event] = deque(maxlen=MOST)
        self._lock = threading.Lock()
        self.number = 0

    def add(self, time_s: float, record: str, group: str, text: str, severity: int) -> None:
        """Add an event, in place of this record's last one if that is new and nothing happened since."""
        with self._lock:
            self.number += 1
            last = self._events[-1] if self._events else None
            replaces = 0
            if last is not None and record and last.record == record and time_s - last.time_s < _SAME_S:
                replaces = last.replaces or last.number
                self._events.pop()
            self._events.append(Event(self.number, time_s, record, group, text[:LONGEST_TEXT], severity, replaces))

    def since(self, number: int) -> list[dict[str, Any]]:
        """Events after this number, the oldest first."""
        if number >= self.number:
            return []
        with self._lock:
            return [asdict(event) for event in self._events if event.number > number]
