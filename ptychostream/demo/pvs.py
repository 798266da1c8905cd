"""Read, write and monitor records over PVA, like any other script."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from p4p.client.thread import Context, Disconnected

from ptychostream.demo.processes import Child, DemoError

POLL_S = 0.1


class Pvs:
    """The records with one prefix."""

    def __init__(self, prefix: str, environment: Mapping[str, str]) -> None:
        self.prefix = prefix
        epics = {key: value for key, value in environment.items() if key.startswith("EPICS_PVA")}
        self._context = Context("pva", conf=epics, useenv=False, nt=False)

    def get(self, *names: str, timeout_s: float = 5.0) -> list[Any]:
        """The values of records in order. The value of a choice is its index. Raises TimeoutError."""
        found = self._context.get([self.prefix + name for name in names], timeout=timeout_s)
        return [_plain(nt) for nt in found]

    def value(self, name: str) -> Any:
        """The value of a record, or None if it does not answer."""
        try:
            return self.get(name, timeout_s=1.0)[0]
        except TimeoutError:
            return None

    def choice(self, name: str) -> str:
        """The text of a choice. Empty if the record does not answer."""
        try:
            value = self._context.get(self.prefix + name, timeout=1.0).value
        except TimeoutError:
            return ""
        return str(value.choices[value.index])

    def choose(self, name: str, text: str) -> None:
        """Write a choice by its text. Raises TimeoutError, RemoteError, ValueError."""
        choices = list(self._context.get(self.prefix + name, timeout=5.0).value.choices)
        self.put(name, choices.index(text))

    def put(self, name: str, value: float | int | str, timeout_s: float = 5.0) -> None:
        """Write a record. A choice is written by its number. Raises TimeoutError, RemoteError."""
        self._context.put(self.prefix + name, value, timeout=timeout_s)

    def follow(self, *names: str) -> Follow:
        """Monitor these records from now on."""
        return Follow(self._context, self.prefix, names)

    def close(self) -> None:
        self._context.close()


@dataclass(frozen=True)
class Update:
    """A record's new value, and its time stamp in POSIX seconds."""

    time_s: float
    value: Any


class Follow:
    """Monitors that store all updates in order. Any thread may read them."""

    def __init__(self, context: Context, prefix: str, names: tuple[str, ...]) -> None:
        self._lock = threading.Lock()
        self._seen: dict[str, list[Update]] = {name: [] for name in names}
        self._monitors = [
            context.monitor(f"{prefix}{name}", lambda value, name=name: self._take(name, value), notify_disconnect=True)
            for name in names
        ]

    def _take(self, name: str, value: Any) -> None:
        if isinstance(value, (Disconnected, Exception)):
            return
        stamp = value.timeStamp
        update = Update(stamp.secondsPastEpoch + stamp.nanoseconds * 1e-9, _plain(value))
        with self._lock:
            seen = self._seen[name]
            if not seen or seen[-1].value != update.value:
                seen.append(update)

    def seen(self, name: str) -> list[Update]:
        """All updates of a record so far."""
        with self._lock:
            return list(self._seen[name])

    def now(self, name: str) -> Any:
        """The newest value, or None before the first update."""
        with self._lock:
            seen = self._seen[name]
            return seen[-1].value if seen else None

    def close(self) -> None:
        for monitor in self._monitors:
            monitor.close()


def until(condition: Callable[[], Any], child: Child, timeout_s: float, what: str) -> None:
    """Wait until `condition` is true. Raises DemoError if `child` ends or the time is over."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        if not child.running():
            raise child.failure()
        if time.monotonic() > deadline:
            raise DemoError(f"no {what} within {timeout_s:.0f} s", where=str(child.log_path), remedy="see that log")
        time.sleep(POLL_S)


def _plain(nt: Any) -> Any:
    """The value of a normative type. A choice gives its index, an array of characters its text."""
    value = nt.value
    if nt.getID().startswith("epics:nt/NTEnum"):
        return value.index
    return value
