"""The agent's journal: scans, their steps, the policy's state and waiting pushes, in one SQLite file.

The file survives kill -9. A scan is entered once, by its key. Each of its steps is `pending`, `running`, `done` or
`failed`; a step that was running when the agent died is pending again at the next start. The newest model that the
edge has not taken yet is kept here. What the agent reads while it works does not grow with the number of scans.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

from ptychostream.hpc_agent.journal.database import Database, Patience
from ptychostream.hpc_agent.journal.policy import Mode, PolicyState

_SCHEMA = """
CREATE TABLE IF NOT EXISTS scans (
    key TEXT PRIMARY KEY, number INTEGER NOT NULL UNIQUE, entered REAL NOT NULL,
    event TEXT NOT NULL, outcome TEXT NOT NULL DEFAULT '',
    asked TEXT NOT NULL DEFAULT '', asked_times INTEGER NOT NULL DEFAULT 0
);
CREATE TABLE IF NOT EXISTS steps (
    scan TEXT NOT NULL REFERENCES scans(key), step TEXT NOT NULL, state TEXT NOT NULL,
    attempts INTEGER NOT NULL DEFAULT 0, result TEXT NOT NULL DEFAULT 'null', message TEXT NOT NULL DEFAULT '',
    changed REAL NOT NULL, PRIMARY KEY (scan, step)
);
CREATE TABLE IF NOT EXISTS transitions (
    id INTEGER PRIMARY KEY AUTOINCREMENT, time REAL NOT NULL, state TEXT NOT NULL, reason TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS kept (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS files (name TEXT PRIMARY KEY, size INTEGER NOT NULL, changed INTEGER NOT NULL);
CREATE INDEX IF NOT EXISTS open_scans ON scans (number) WHERE outcome = '';
"""
_VERSION = 1


class StepState(Enum):
    """State of a step."""

    PENDING = "pending"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"


@dataclass(frozen=True)
class ScanEntry:
    """A scan.

    Attributes
    ----------
    key, number
        Its name, and its number in order of arrival.
    event
        The event that reported it.
    outcome
        How it ended; empty: not yet.
    asked, asked_times
        The operator's command that asked for it again ("" for none), and how often an operator asked.
    """

    key: str
    number: int
    entered_s: float
    event: dict[str, Any]
    outcome: str
    asked: str
    asked_times: int


@dataclass(frozen=True)
class StepEntry:
    """A step of a scan: its state, how often it began, its result, and why it failed."""

    step: str
    state: StepState
    attempts: int
    result: Any
    message: str


class Journal:
    """The journal file. Methods may be called from any thread. Each is one transaction, on disk when it returns.

    Parameters
    ----------
    path, shared, patience
        See `Database`.

    Raises
    ------
    AgentError
        The file is no journal, is from a later version, or cannot be written.
    """

    def __init__(self, path: Path, *, shared: bool = False, patience: Patience | None = None) -> None:
        self._database = Database(path, _SCHEMA, _VERSION, shared=shared, patience=patience)

    def close(self) -> None:
        self._database.close()

    # Scans

    def enter(self, key: str, event: dict[str, Any], now_s: float) -> bool:
        """Enter a scan; False if it was entered before."""

        def enter(db: sqlite3.Connection) -> bool:
            number = int(db.execute("SELECT COALESCE(MAX(number), 0) + 1 FROM scans").fetchone()[0])
            done = db.execute(
                "INSERT OR IGNORE INTO scans (key, number, entered, event) VALUES (?, ?, ?, ?)",
                (key, number, now_s, json.dumps(event)),
            )
            return done.rowcount == 1

        return self._database.write(enter)

    def open_scans(self) -> list[ScanEntry]:
        """Scans without an outcome, oldest first."""
        return self._scans("WHERE outcome = '' ORDER BY number")

    def next_scan(self) -> ScanEntry | None:
        """The oldest scan without an outcome; None: there is none."""
        return next(iter(self._scans("WHERE outcome = '' ORDER BY number LIMIT 1")), None)

    def scans(self) -> list[ScanEntry]:
        """All, oldest first."""
        return self._scans("ORDER BY number")

    def event(self, key: str) -> dict[str, Any] | None:
        """The event that a scan was entered with; None: there is no such scan."""
        row = self._row("SELECT event FROM scans WHERE key = ?", key)
        return None if row is None else dict(json.loads(row[0]))

    def latest_scan(self) -> ScanEntry | None:
        """The scan that was entered last; None: there is none."""
        return next(iter(self._scans("ORDER BY number DESC LIMIT 1")), None)

    def any_ended(self) -> bool:
        """Whether a scan has an outcome."""
        return self._row("SELECT 1 FROM scans WHERE outcome != '' ORDER BY number DESC LIMIT 1") is not None

    def close_scan(self, key: str, outcome: str) -> None:
        """The scan has ended, with success or not; `outcome` says how."""
        assert outcome
        self._execute("UPDATE scans SET outcome = ? WHERE key = ?", outcome, key)

    def ask_again(self, command: str) -> str:
        """Open the latest scan that has ended again, for the operator's `command`.

        Returns
        -------
        str
            The scan's key; empty: there is no such scan.
        """

        def ask(db: sqlite3.Connection) -> str:
            row = db.execute("SELECT key FROM scans WHERE outcome != '' ORDER BY number DESC LIMIT 1").fetchone()
            if row is None:
                return ""
            db.execute(
                "UPDATE scans SET outcome = '', asked = ?, asked_times = asked_times + 1 WHERE key = ?",
                (command, row[0]),
            )
            return str(row[0])

        return self._database.write(ask)

    def scans_beyond(self, keep: int, limit: int) -> list[ScanEntry]:
        """Ended scans with results that are older than the newest `keep` of their like, and not noted as cleared.

        At most `limit` are given, oldest first.
        """
        condition = (
            "WHERE outcome != '' AND number > ? AND EXISTS (SELECT 1 FROM steps WHERE scan = key AND step LIKE "
            "'reconstruct%') ORDER BY number LIMIT ?"
        )
        found = self._scans(condition, self._get("cleared") or 0, keep + limit)
        return found[: max(0, len(found) - keep)]

    def cleared(self, number: int) -> None:
        """The results of ended scans up to this number are gone from the disk."""
        self._database.write(lambda db: self._put(db, "cleared", number))

    # Steps

    def begin(self, scan: str, step: str, now_s: float) -> StepEntry:
        """Begin a step, unless it is done; return its entry, with the result if it is done."""

        def begin(db: sqlite3.Connection) -> StepEntry:
            db.execute(
                "INSERT INTO steps (scan, step, state, attempts, changed) VALUES (?, ?, 'running', 1, ?) "
                "ON CONFLICT (scan, step) DO UPDATE SET state = 'running', attempts = attempts + 1, "
                "changed = excluded.changed WHERE state != 'done'",
                (scan, step, now_s),
            )
            return self._step(db, scan, step)

        return self._database.write(begin)

    def finish(self, scan: str, step: str, result: Any, now_s: float) -> None:
        """The step is done with `result`, which JSON can hold."""
        self._set(scan, step, StepState.DONE, json.dumps(result), "", now_s)

    def fail(self, scan: str, step: str, message: str, now_s: float, again: bool) -> None:
        """The step failed; `again`: it may begin again."""
        self._set(scan, step, StepState.PENDING if again else StepState.FAILED, "null", message, now_s)

    def postpone(self, scan: str, step: str, message: str, now_s: float) -> None:
        """The step could not be done through no fault of its own: it begins again, and this time does not count."""
        self._execute(
            "UPDATE steps SET state = 'pending', attempts = attempts - 1, message = ?, changed = ? "
            "WHERE scan = ? AND step = ?",
            *(message, now_s, scan, step),
        )

    def steps(self, scan: str) -> dict[str, StepEntry]:
        """The steps of a scan by name, in the order in which they began."""

        def steps(db: sqlite3.Connection) -> dict[str, StepEntry]:
            names = db.execute("SELECT step FROM steps WHERE scan = ? ORDER BY rowid", (scan,)).fetchall()
            return {name: self._step(db, scan, name) for (name,) in names}

        return self._database.read(steps)

    def results_before(self, number: int, step: str, limit: int) -> list[Any]:
        """Results of the step whose name begins with `step`, of at most `limit` scans before this one, newest first."""
        found = self._rows(
            "SELECT result FROM scans JOIN steps ON steps.scan = scans.key WHERE scans.number < ? AND "
            "steps.state = 'done' AND steps.step LIKE ? ORDER BY scans.number DESC, steps.rowid DESC LIMIT ?",
            *(number, f"{step}%", limit),
        )
        return [json.loads(result) for (result,) in found]

    def recover(self, now_s: float) -> list[tuple[str, str]]:
        """At start, make steps pending that were running when the last agent died; return (scan, step) of each."""

        def recover(db: sqlite3.Connection) -> list[tuple[str, str]]:
            found = db.execute("SELECT scan, step FROM steps WHERE state = 'running'").fetchall()
            db.execute("UPDATE steps SET state = 'pending', changed = ? WHERE state = 'running'", (now_s,))
            return [(str(scan), str(step)) for scan, step in found]

        return self._database.write(recover)

    # Policy, pushes, files that were seen

    def policy(self) -> PolicyState:
        """The policy's state as it was written last; the initial state before that."""
        found = self._get("policy")
        if found is None:
            return PolicyState()
        return PolicyState(Mode(found["mode"]), found["within"], found["last_looked_s"], Mode(found["resumes"]))

    def keep_policy(self, state: PolicyState, reason: str, now_s: float) -> None:
        """Write the policy's state, and the transition with its reason if the mode has changed."""
        before = self.policy()
        self._database.write(lambda db: self._keep_policy(db, before, state, reason, now_s))

    def decide(self, scan: str, step: str, state: PolicyState, result: Any, reason: str, now_s: float) -> None:
        """Write the policy's state and its decision for a scan, as a step that is done, in one transaction."""
        before = self.policy()

        def decide(db: sqlite3.Connection) -> None:
            self._keep_policy(db, before, state, reason, now_s)
            db.execute(
                "INSERT OR REPLACE INTO steps (scan, step, state, attempts, result, message, changed) "
                "VALUES (?, ?, 'done', 1, ?, ?, ?)",
                (scan, step, json.dumps(result), reason, now_s),
            )

        self._database.write(decide)

    def transitions(self) -> list[tuple[float, str, str]]:
        """(time, mode, reason) of every change of mode."""
        return self._rows("SELECT time, state, reason FROM transitions ORDER BY id")

    def want_push(self, sha256: str) -> None:
        """Let this model wait for its push to the edge; it replaces one that waits."""
        self._database.write(lambda db: self._put(db, "push", sha256))

    @property
    def waiting_push(self) -> str:
        """sha256 of the model that waits for its push; empty: none."""
        return self._get("push") or ""

    def pushed(self, sha256: str) -> None:
        """The edge runs this model. A newer one that waits keeps waiting."""
        self._execute("DELETE FROM kept WHERE name = 'push' AND value = ?", json.dumps(sha256))

    def files(self) -> dict[str, tuple[int, int]] | None:
        """(size in bytes, time of change in ns) of each file that was seen, by name. None: no folder was seen yet."""
        if self._get("files") is None:
            return None
        return {name: (size, changed) for name, size, changed in self._rows("SELECT name, size, changed FROM files")}

    def note_files(self, files: Iterable[tuple[str, int, int]]) -> None:
        """Remember name, size and time of change of these files."""
        rows = list(files)

        def note(db: sqlite3.Connection) -> None:
            db.executemany("INSERT OR REPLACE INTO files (name, size, changed) VALUES (?, ?, ?)", rows)
            self._put(db, "files", True)

        self._database.write(note)

    # The file

    def _rows(self, text: str, *values: Any) -> list[Any]:
        return self._database.read(lambda db: db.execute(text, values).fetchall())

    def _row(self, text: str, *values: Any) -> Any:
        return self._database.read(lambda db: db.execute(text, values).fetchone())

    def _execute(self, text: str, *values: Any) -> None:
        self._database.write(lambda db: db.execute(text, values))

    def _scans(self, condition: str, *values: Any) -> list[ScanEntry]:
        columns = "key, number, entered, event, outcome, asked, asked_times"
        return [
            ScanEntry(key, number, entered, json.loads(event), outcome, asked, times)
            for key, number, entered, event, outcome, asked, times in self._rows(
                f"SELECT {columns} FROM scans {condition}", *values
            )
        ]

    def _set(self, scan: str, step: str, state: StepState, result: str, message: str, now_s: float) -> None:
        self._execute(
            "UPDATE steps SET state = ?, result = ?, message = ?, changed = ? WHERE scan = ? AND step = ?",
            *(state.value, result, message, now_s, scan, step),
        )

    @staticmethod
    def _step(db: sqlite3.Connection, scan: str, step: str) -> StepEntry:
        state, attempts, result, message = db.execute(
            "SELECT state, attempts, result, message FROM steps WHERE scan = ? AND step = ?", (scan, step)
        ).fetchone()
        return StepEntry(step, StepState(state), attempts, json.loads(result), message)

    def _get(self, name: str) -> Any:
        row = self._row("SELECT value FROM kept WHERE name = ?", name)
        return None if row is None else json.loads(row[0])

    def _keep_policy(
        self, db: sqlite3.Connection, before: PolicyState, state: PolicyState, reason: str, now_s: float
    ) -> None:
        value = {
            "mode": state.mode.value,
            "within": state.within,
            "last_looked_s": state.last_looked_s,
            "resumes": state.resumes.value,
        }
        self._put(db, "policy", value)
        if before.mode is not state.mode:
            entry = (now_s, state.mode.value, reason)
            db.execute("INSERT INTO transitions (time, state, reason) VALUES (?, ?, ?)", entry)

    @staticmethod
    def _put(db: sqlite3.Connection, name: str, value: Any) -> None:
        db.execute("INSERT OR REPLACE INTO kept (name, value) VALUES (?, ?)", (name, json.dumps(value)))
