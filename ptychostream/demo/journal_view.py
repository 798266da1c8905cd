"""Read the agent's journal from its SQLite file, while the agent runs or after it has ended.

The demonstration is a client: it imports nothing of the agent, and reads the file like any other script.
"""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ptychostream.demo.processes import DemoError

VERSION = 1
"""`user_version` of the journals that this module can read."""


@dataclass(frozen=True)
class JournalStep:
    """A step of a scan. `changed_s` is the POSIX time of its last change of state."""

    name: str
    state: str
    result: Any
    message: str
    changed_s: float


@dataclass(frozen=True)
class JournalScan:
    """A scan, its outcome (empty while it runs), and its steps in the order of their start."""

    key: str
    entered_s: float
    outcome: str
    steps: dict[str, JournalStep]

    def result(self, step: str) -> dict[str, Any] | None:
        """The result of a step. None if the step is not done or has no result."""
        found = self.steps.get(step)
        return found.result if found is not None and found.state == "done" else None


@dataclass(frozen=True)
class JournalView:
    """The journal at one moment.

    Attributes
    ----------
    scans
        The scans in order of arrival.
    transitions
        (POSIX time, mode, reason) of each change of the policy's mode.
    waiting_push
        sha256 of a model that the edge has not taken yet. Empty: none.
    """

    scans: list[JournalScan] = field(default_factory=list)
    transitions: list[tuple[float, str, str]] = field(default_factory=list)
    waiting_push: str = ""

    def scan(self, key: str) -> JournalScan | None:
        """The scan with that key, or None if the agent has not entered it yet."""
        return next((scan for scan in self.scans if scan.key == key), None)

    def through(self, key: str) -> bool:
        """Whether the agent has finished a scan, and its new model, if any, is at the edge."""
        scan = self.scan(key)
        return scan is not None and bool(scan.outcome) and not self.waiting_push


def read_journal(path: Path) -> JournalView:
    """Read the journal. It is empty if there is no file yet.

    Raises
    ------
    DemoError
        The journal has another version, or cannot be read.
    """
    if not path.exists():
        return JournalView()
    try:
        with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True, timeout=10.0)) as db:
            version = int(db.execute("PRAGMA user_version").fetchone()[0])
            if version == 0:  # the agent has not written it yet
                return JournalView()
            if version != VERSION:
                what = f"has version {version}; this program reads {VERSION}"
                raise DemoError(what, where=str(path), remedy="run both with the same version of ptychostream")
            with db:
                db.execute("BEGIN")  # all three queries see the same moment
                return _read(db)
    except sqlite3.Error as error:
        raise DemoError(f"unreadable: {error}", where=str(path), remedy="see the agent's log") from error


def _read(db: sqlite3.Connection) -> JournalView:
    steps: dict[str, dict[str, JournalStep]] = {}
    for scan, *columns in db.execute("SELECT scan, step, state, result, message, changed FROM steps ORDER BY rowid"):
        name, state, result, message, changed = columns
        steps.setdefault(scan, {})[name] = JournalStep(name, state, json.loads(result), message, changed)
    scans = [
        JournalScan(key, entered, outcome, steps.get(key, {}))
        for key, entered, outcome in db.execute("SELECT key, entered, outcome FROM scans ORDER BY number")
    ]
    transitions = db.execute("SELECT time, state, reason FROM transitions ORDER BY id").fetchall()
    waiting = db.execute("SELECT value FROM kept WHERE name = 'push'").fetchone()
    return JournalView(scans, transitions, json.loads(waiting[0]) if waiting else "")
