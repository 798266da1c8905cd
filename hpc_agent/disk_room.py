"""Holds work back while the disk refuses it, and says so; the work goes on by itself."""

from __future__ import annotations

import logging
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from ptychostream.errors import DiskFullError

_T = TypeVar("_T")
_log = logging.getLogger(__name__)

_AGAIN_S = 5.0


class StoppedError(Exception):
    """The agent stops. The scan continues at its next start."""


class DiskRoom:
    """The room on the disk of the work folder. Any thread.

    It implements `ptychostream.hpc_agent.journal.database.Patience`: a write that the journal's disk refuses is tried
    again until it succeeds or the agent stops.

    Parameters
    ----------
    folder
        The work folder.
    least_free
        No step begins while fewer bytes than this are free.
    again_s
        Time between two tries.
    """

    def __init__(self, folder: Path, least_free: int = 0, again_s: float = _AGAIN_S) -> None:
        self.on_change: Callable[[str], None] = lambda _reason: None
        """Called with each new reason, and with "" when there is none any more."""
        self.also: Callable[[], str] = lambda: ""
        """Gives a further reason to hold steps back; empty: none."""
        self._folder = folder
        self._least_free = least_free
        self._again_s = again_s
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._waiting: dict[int, str] = {}

    @property
    def reason(self) -> str:
        """Why work is held back; empty: it is not."""
        with self._lock:
            return next(iter(self._waiting.values()), "")

    def stop(self) -> None:
        """End every wait; what waits raises StoppedError."""
        self._stop.set()

    def pause(self, seconds: float) -> bool:
        """Wait; returns whether the agent stops."""
        return self._stop.wait(seconds)

    def refused(self, reason: str) -> None:
        """Wait until the time of the next try. Raises StoppedError."""
        before = self.reason
        with self._lock:
            self._waiting[threading.get_ident()] = reason
        if self.reason != before:
            _log.error("%s: work waits until this is over", self.reason)
            self.on_change(self.reason)
        if self.pause(self._again_s):
            raise StoppedError

    def done(self) -> None:
        """What this thread was refused has succeeded."""
        with self._lock:
            waited = self._waiting.pop(threading.get_ident(), "")
        if waited and not self.reason:
            _log.info("work goes on")
            self.on_change("")

    def insist(self, attempt: Callable[[], _T], what: str) -> _T:
        """The result of `attempt`, which is tried again as long as the system refuses it. Raises StoppedError."""
        while True:
            try:
                result = attempt()
            except OSError as error:
                self.refused(f"{what}: {error.strerror or error}")
            else:
                self.done()
                return result

    def is_cause_of(self, error: Exception) -> bool:
        """Whether a step failed for want of room, through no fault of its own."""
        return isinstance(error, DiskFullError) or bool(self.missing())

    def missing(self) -> str:
        """Why no step can be done now; empty: it can."""
        try:
            free = shutil.disk_usage(self._folder).free
        except OSError as error:
            return f"{self._folder} cannot be reached: {error.strerror or error}"
        if free < self._least_free:
            return f"the disk of {self._folder} is full: {free / 1e6:.0f} MB free, {self._least_free / 1e6:.0f} needed"
        return self.also()

    def wait_for_room(self) -> None:
        """Return when a step can be done. Raises StoppedError."""
        while reason := self.missing():
            self.refused(reason)
        self.done()
