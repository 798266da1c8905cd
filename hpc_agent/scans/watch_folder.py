"""Finds files of scans that completed while the agent did not run, or that no PV has reported."""

from __future__ import annotations

import glob
import logging
import math
import re
import stat
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from pydantic import Field, field_validator

from ptychostream.config import Settings
from ptychostream.hpc_agent.scans.collect import CollectSettings, ScanEvent, wait_until_closed
from ptychostream.hpc_agent.scans.scan_checks import CollectError

_log = logging.getLogger(__name__)

_SCAN = "{scan}"
_LONGEST_S = 3600.0  # between two tries to open a file that its writer has not closed


class FolderSettings(Settings):
    """Where scan files appear.

    Attributes
    ----------
    files
        Their names: a path with `{scan}` for the scan's id and, if need be, `*`, `?`, `[0-9]`. Empty: no folder.
    quiet_s
        A file must not have been seen to change for so long: its scan may still run.
    poll_s
        Time between two looks at the folder; 0: only at the start and when the scan PVs are connected again.
    """

    files: str = ""
    quiet_s: float = Field(30.0, ge=0)
    poll_s: float = Field(0.0, ge=0)

    @field_validator("files")
    @classmethod
    def _one_id(cls, files: str) -> str:
        if files and files.count(_SCAN) > 1:
            raise ValueError(f"{_SCAN} may come once")
        return files


class SeenFiles(Protocol):
    """The memory of the files that were seen; the journal's."""

    def files(self) -> dict[str, tuple[int, int]] | None:
        """(size in bytes, time of change in ns) by name; None: no folder was seen yet."""
        ...

    def note_files(self, files: Iterable[tuple[str, int, int]]) -> None:
        """Remember name, size and time of change."""
        ...


@dataclass(frozen=True)
class FoundScan:
    """A file that is complete, and the scan that it holds."""

    event: ScanEvent
    name: str
    size: int
    changed_ns: int


@dataclass
class _Watched:
    """A file that is new or has changed: its state, since when it has it, and when it is opened next."""

    state: tuple[int, int]
    since: float
    due: float
    tries: int = 0


class MissedScans:
    """Finds each file that is new, or whose size or time of change has changed. A scan may still be reported twice.

    No clock of another host matters: a file is taken when this agent has not seen it change for `quiet_s`. What was
    there when the folder was seen first is left alone.

    Parameters
    ----------
    seen
        Remembers the files over restarts.
    clock
        A time in seconds that only increases.
    """

    def __init__(self, settings: FolderSettings, seen: SeenFiles, clock: Callable[[], float] = time.monotonic) -> None:
        self._settings = settings
        self._memory = seen
        self._seen = seen.files()
        self._clock = clock
        self._watched: dict[str, _Watched] = {}

    @property
    def next_s(self) -> float:
        """How long until a file that is new may be complete; infinite: there is none."""
        return min((watched.due for watched in self._watched.values()), default=math.inf) - self._clock()

    def look(self) -> list[FoundScan]:
        """Complete scans that are new, oldest first. Call `note` for each that was entered in the journal."""
        if not self._settings.files:
            return []
        states = self._states()
        if self._seen is None:
            if not _root(self._settings.files).is_dir():
                return []  # it is not mounted yet
            self._memory.note_files((name, *state) for name, state in states.items())
            self._seen = dict(states)
        now, named = self._clock(), name_pattern(self._settings.files)
        self._watched = {name: watched for name, watched in self._watched.items() if name in states}
        found = []
        for name, state in states.items():
            match = named.fullmatch(name)
            if match is None or self._seen.get(name) == state:
                self._watched.pop(name, None)
            elif self._complete(name, state, now):
                found.append(FoundScan(ScanEvent(match.groupdict().get("scan", ""), name), name, *state))
        return sorted(found, key=lambda each: (each.changed_ns, each.name))

    def note(self, found: FoundScan) -> None:
        """This file was entered in the journal; it is not found again unless it changes."""
        assert self._seen is not None
        self._memory.note_files([(found.name, found.size, found.changed_ns)])
        self._seen[found.name] = (found.size, found.changed_ns)
        self._watched.pop(found.name, None)

    def _states(self) -> dict[str, tuple[int, int]]:
        """Size and time of change of the files that have such a name."""
        states = {}
        for name in glob.iglob(self._settings.files.replace(_SCAN, "*")):  # noqa: PTH207 - a pattern, not a folder
            try:
                status = Path(name).stat()
            except OSError:
                continue  # it was removed meanwhile
            if stat.S_ISREG(status.st_mode):
                states[name] = (status.st_size, status.st_mtime_ns)
        return states

    def _complete(self, name: str, state: tuple[int, int], now: float) -> bool:
        """Whether the file has not changed for `quiet_s` and its writer has closed it.

        One that stays open is named once, and then opened less and less often.
        """
        quiet_s = self._settings.quiet_s
        watched = self._watched.get(name)
        if watched is None or watched.state != state:
            watched = self._watched[name] = _Watched(state, now, now + quiet_s)
        if now < watched.due:
            return False
        if _closed(Path(name)):
            return True
        if not watched.tries:
            _log.warning("%s has not changed for %.0f s and was not closed: it is left until it changes", name, quiet_s)
        watched.tries += 1
        watched.due = now + min(max(quiet_s, 1.0) * 2.0**watched.tries, _LONGEST_S)
        return False


def _root(files: str) -> Path:
    """The folder that a template names before its first pattern."""
    fixed = []
    for part in Path(files).parent.parts:
        if any(sign in part for sign in "*?[{"):
            break
        fixed.append(part)
    return Path(*fixed)


def name_pattern(files: str) -> re.Pattern[str]:
    """File names of a template as a regular expression, with the group `scan`.

    Examples
    --------
    >>> name_pattern("/data/*/s_{scan}.h5").fullmatch("/data/may/s_12.h5")["scan"]
    '12'
    """
    parts = re.split(r"(\{scan\}|\*|\?|\[[^/\]]+\])", files)
    meaning = {_SCAN: r"(?P<scan>[^/]+)", "*": r"[^/]*", "?": r"[^/]"}
    known = {part: part.replace("[!", "[^") for part in parts if part.startswith("[")} | meaning
    return re.compile("".join(known.get(part, re.escape(part)) for part in parts))


def _closed(path: Path) -> bool:
    try:
        wait_until_closed(path, CollectSettings(timeout_s=0.01, quiet_s=0.0, poll_s=0.01), threading.Event())
    except CollectError:
        return False
    return True
