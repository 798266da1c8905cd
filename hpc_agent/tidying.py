"""Bounds what the agent leaves on the disk: results of old scans, leftovers of kills, logs, copies of the journal."""

from __future__ import annotations

import logging
import shutil
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from datetime import datetime, timezone
from pathlib import Path

from ptychostream.hpc_agent.journal.journal import Journal
from ptychostream.scans.phase_file import file_stem
from ptychostream.storage.atomic import TEMPORARY, atomic_path

_log = logging.getLogger(__name__)

COPIES = "journal-copies"
_AT_ONCE = 20  # scans whose results are removed in one go
_COPY_AGAIN_S = 3600.0
_KEPT_COPIES = 7
_PARSL_RUNS = 5


def temporary(work: Path) -> Path:
    """The folder of files that are worth nothing after the process that made them."""
    return work / "temporary"


def remove_leftovers(work: Path) -> int:
    """Remove what killed processes of an earlier agent left half written; returns how many files and folders.

    Call it while no other agent and no step uses the folder. The model store, to which other programs add, removes its
    own leftovers.
    """
    found = [path for path in (temporary(work),) if path.exists()]
    for folder in (work, work / COPIES, work / "corpus", work / "scans", *_folders(work / "scans", 2)):
        if folder.is_dir():
            found += [path for path in folder.iterdir() if TEMPORARY.fullmatch(path.name)]
    runs = [run for run in _folders(work / "parsl", 1) if run.name.isdigit()]
    found += sorted(runs, key=lambda run: int(run.name))[:-_PARSL_RUNS]
    for path in found:
        _remove(path)
    if found:
        _log.info("%d leftovers of an earlier agent are removed", len(found))
    return len(found)


def clear_old_scans(work: Path, journal: Journal, keep: int) -> int:
    """Remove the folders of ended scans but the newest `keep` that were reconstructed; returns how many."""
    old = journal.scans_beyond(keep, _AT_ONCE)
    for scan in old:
        _remove(work / "scans" / file_stem(scan.key))
    if old:
        journal.cleared(old[-1].number)
    return len(old)


class JournalCopies:
    """Copies the journal once a day, and keeps the newest copies.

    Parameters
    ----------
    path
        The journal. The copies are in `journal-copies` beside it.
    today
        Gives the date that names a copy.
    clock
        A time in seconds that only increases.
    """

    def __init__(
        self,
        path: Path,
        today: Callable[[], str] = lambda: datetime.now(timezone.utc).strftime("%Y-%m-%d"),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._path = path
        self._folder = path.parent / COPIES
        self._today = today
        self._clock = clock
        self._due = clock()

    def look(self) -> bool:
        """Make today's copy where it is not there; returns whether it was made. A failure is tried again later."""
        if self._clock() < self._due:
            return False
        self._due = self._clock() + _COPY_AGAIN_S
        copy = self._folder / f"{self._path.stem}-{self._today()}{self._path.suffix}"
        if copy.exists():
            return False
        try:
            with (
                atomic_path(copy) as new,
                closing(sqlite3.connect(self._path)) as source,
                closing(sqlite3.connect(new)) as target,
            ):
                source.backup(target)
        except (OSError, sqlite3.Error) as error:
            _log.warning("the journal is not copied: %s", error)
            return False
        for old in sorted(self._folder.glob(f"{self._path.stem}-*{self._path.suffix}"))[:-_KEPT_COPIES]:
            _remove(old)
        return True


def _folders(beginning: Path, depth: int) -> list[Path]:
    """The folders in `beginning`, and in those, down to this depth."""
    if depth == 0 or not beginning.is_dir():
        return []
    here = [path for path in beginning.iterdir() if path.is_dir() and not path.is_symlink()]
    return here + [deeper for folder in here for deeper in _folders(folder, depth - 1)]


def _remove(path: Path) -> None:
    try:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    except OSError as error:
        _log.warning("%s is not removed: %s", path, error)
