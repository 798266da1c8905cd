"""Finds files of scans that completed while the agent did not run."""

from __future__ import annotations

import contextlib
import glob
import re
import threading
from pathlib import Path

from pydantic import Field, field_validator

from ptychostream.config import Settings
from ptychostream.hpc_agent.journal.journal import Journal
from ptychostream.hpc_agent.scans.collect import CollectSettings, ScanEvent, local_name, wait_until_closed
from ptychostream.hpc_agent.scans.scan_checks import CollectError

_SCAN = "{scan}"


class FolderSettings(Settings):
    """Where scan files appear.

    Attributes
    ----------
    files
        Their names: a path with `{scan}` for the scan's id and, if need be, `*`, `?`, `[0-9]`. Empty: no folder.
    quiet_s
        A file that changed within this time is not taken: its scan may still run.
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


class MissedScans:
    """Finds each file once that was written after a given time. A scan may still be reported twice.

    Parameters
    ----------
    since_s
        POSIX time by the file system's clock; older files are ignored.
    """

    def __init__(self, settings: FolderSettings, since_s: float) -> None:
        self._settings = settings
        self._since_s = since_s

    def look(self, now_s: float) -> list[ScanEvent]:
        """New scans, oldest first. A file that is still written is left for a later call."""
        settings = self._settings
        if not settings.files:
            return []
        named = name_pattern(settings.files)
        found, unfinished = [], []
        for name in glob.iglob(settings.files.replace(_SCAN, "*")):  # noqa: PTH207 - a pattern, not a folder
            match = named.fullmatch(name)
            path = Path(name)
            try:
                changed = path.stat().st_mtime
            except OSError:
                continue  # it was removed meanwhile
            if match is None or not path.is_file() or not self._since_s < changed <= now_s - settings.quiet_s:
                continue
            if _closed(path):
                found.append((changed, name, ScanEvent(match.groupdict().get("scan", ""), name)))
            else:
                unfinished.append(changed)
        if found and not unfinished:
            self._since_s = max(changed for changed, _, _ in found)
        return [event for _, _, event in sorted(found, key=lambda each: each[:2])]


def last_seen_s(journal: Journal, path_map: dict[str, str]) -> float | None:
    """When the newest scan file of the journal was written, POSIX time; None: the journal has no scan."""
    newest: float | None = None
    for entry in journal.scans():
        when = entry.entered_s
        if file := entry.event.get("file"):
            with contextlib.suppress(OSError):  # use the time of the entry
                when = Path(local_name(file, path_map)).stat().st_mtime
        newest = when if newest is None else max(newest, when)
    return newest


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
