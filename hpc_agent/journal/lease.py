"""The lease of a work folder: a file that the agent at work changes again and again.

Clocks are not compared, because those of two hosts may differ by any time. Another agent takes the lease only after it
has watched the file for the lease's whole time and has not seen it change. The file has a fixed size and is overwritten
in place, so that a renewal needs no space on the disk.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ptychostream.errors import AgentError

NAME = "agent.lease"
_BYTES = 512
_LONGEST_S = 600.0  # no lease lasts longer, whatever a damaged file says
_LOOKS = 20  # so often the file is read during a lease's time
_REMEDY = "stop that agent, or give this one another work folder"


class Lease:
    """The lease of one folder, for one agent.

    Parameters
    ----------
    folder
        The work folder.
    holder
        The agent's name, which no other agent has.
    lasts_s
        The lease is renewed several times within this time.
    clock
        A time in seconds that only increases.
    wait
        Waits for some seconds; returns True if the agent stops.
    """

    def __init__(
        self,
        folder: Path,
        holder: str,
        lasts_s: float = 30.0,
        *,
        clock: Callable[[], float] = time.monotonic,
        wait: Callable[[float], bool],
    ) -> None:
        self.holder = holder
        self.lasts_s = lasts_s
        self._path = folder / NAME
        self._clock = clock
        self._wait = wait
        self._count = 0
        self._renewed_at = clock()

    def take(self, sure: bool = False) -> bool:
        """Take the lease; where another agent has it, watch for its time whether that agent lives.

        Parameters
        ----------
        sure
            A lock of the file system keeps every other agent out, so that nobody takes the lease at the same moment.

        Returns
        -------
        bool
            False: the agent stops.

        Raises
        ------
        AgentError
            Another agent is at work.
        OSError
            The file cannot be written.
        """
        found = read(self._path)
        if found.get("holder", self.holder) != self.holder and not self._unmoved(found):
            return False
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._count += 1
        self._write(self._content())
        os.truncate(self._path, _BYTES)
        if not sure:  # of two agents that wrote at the same moment, the last one has it
            if self._wait(self.lasts_s / _LOOKS):
                return False
            self._check(read(self._path))
        self._renewed_at = self._clock()
        return True

    def renew(self) -> None:
        """Renew the lease.

        Raises
        ------
        AgentError
            Another agent has taken it.
        OSError
            It cannot be written. `overdue` says when others may take it.
        """
        self._check(read(self._path))
        self._count += 1
        try:
            self._write(self._content())
        except OSError:  # a copy-on-write file system that is full: the file's time still changes
            os.utime(self._path, ns=(self._count, self._count))
        self._renewed_at = self._clock()

    @property
    def overdue(self) -> bool:
        """Whether the lease was not renewed for its whole time, so that another agent may have taken it."""
        return self._clock() - self._renewed_at >= self.lasts_s

    def give(self) -> None:
        """Release the lease, so that the next agent need not watch."""
        if read(self._path).get("holder") == self.holder:
            self._path.unlink(missing_ok=True)

    def _unmoved(self, found: dict[str, Any]) -> bool:
        """Watch the file for its whole time. False: the agent stops. Raises AgentError where it changes."""
        lasts_s = min(float(found.get("lasts_s", self.lasts_s)), _LONGEST_S)
        began = self._clock()
        while self._clock() - began < lasts_s:
            if self._wait(lasts_s / _LOOKS):
                return False
            now = read(self._path)
            if now != found:
                if "holder" not in now:
                    return True  # it was released
                raise AgentError(
                    f"the agent {now['holder']} is at work here", where=str(self._path.parent), remedy=_REMEDY
                )
        return True

    def _check(self, found: dict[str, Any]) -> None:
        if found.get("holder", self.holder) != self.holder:
            what = f"the agent {found['holder']} has taken the work folder"
            raise AgentError(what, where=str(self._path.parent), remedy=_REMEDY)

    def _content(self) -> bytes:
        content = {"holder": self.holder, "count": self._count, "lasts_s": self.lasts_s}
        return json.dumps(content).encode().ljust(_BYTES)

    def _write(self, content: bytes) -> None:
        descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT, 0o666)
        try:
            os.pwrite(descriptor, content, 0)
        finally:
            os.close(descriptor)


def read(path: Path) -> dict[str, Any]:
    """What the file holds, with its time of change; empty: there is no lease.

    The file is opened anew each time: a file system over the network then asks its server.
    """
    try:
        with path.open("rb") as file:
            text, changed = file.read(_BYTES), os.fstat(file.fileno()).st_mtime_ns
    except FileNotFoundError:
        return {}
    if not text.strip():
        return {}
    try:
        found = json.loads(text)
    except ValueError:
        found = None
    named = found if isinstance(found, dict) and isinstance(found.get("holder"), str) else {"holder": "of no name"}
    return {**named, "changed": changed}
