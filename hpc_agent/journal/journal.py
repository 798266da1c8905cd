"""The agent's journal: scans, their steps, the policy's state and waiting pushes, in one SQLite file.

The file survives kill -9. A scan is entered once, by its key. Each of its steps is `pending`, `running`, `done` or
`failed`; a step that was running when the agent died is pending again at the next start. The newest model that the
edge has not taken yet is kept here. One agent at a time has the lease.
"""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

from ptychostream.errors import AgentError
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

    Raises
    ------
    AgentError
        The file is no journal, is from a later version, or cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self._where = str(path)
        self._lock = threading.Lock()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._db = sqlite3.connect(path, timeout=10.0, check_same_thread=False, isolation_level=None)
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=FULL")
            version = int(self._db.execute("PRAGMA user_version").fetchone()[0])
            if version > _VERSION:
                what = f"of version {version}; this program knows {_VERSION}"
                raise AgentError(what, where=self._where, remedy="update the agent, or name another work folder")
            self._db.executescript(_SCHEMA)
            self._db.execute(f"PRAGMA user_version={_VERSION}")
        except (OSError, sqlite3.Error) as error:
            raise self._failure(error) from error

    def close(self) -> None:
        with self._lock:
            self._db.close()

    # Scans

    def enter(self, key: str, event: dict[str, Any], now_s: float) -> bool:
        """Enter a scan; False if it was entered before."""
        with self._transaction() as db:
            number = int(db.execute("SELECT COALESCE(MAX(number), 0) + 1 FROM scans").fetchone()[0])
            done = db.execute(
                "INSERT OR IGNORE INTO scans (key, number, entered, event) VALUES (?, ?, ?, ?)",
                (key, number, now_s, json.dumps(event)),
            )
            return done.rowcount == 1

    def open_scans(self) -> list[ScanEntry]:
        """Scans without an outcome, oldest first."""
        return self._scans("WHERE outcome = '' ORDER BY number")

    def scans(self) -> list[ScanEntry]:
        """All, oldest first."""
        return self._scans("ORDER BY number")

    def event(self, key: str) -> dict[str, Any] | None:
        """The event that a scan was entered with; None: there is no such scan."""
        with self._reading() as db:
            row = db.execute("SELECT event FROM scans WHERE key = ?", (key,)).fetchone()
        return None if row is None else dict(json.loads(row[0]))

    def latest_scan(self) -> ScanEntry | None:
        """The scan that was entered last; None: there is none."""
        return next(iter(self._scans("ORDER BY number DESC LIMIT 1")), None)

    def close_scan(self, key: str, outcome: str) -> None:
        """The scan has ended, with success or not; `outcome` says how."""
        assert outcome
        with self._transaction() as db:
            db.execute("UPDATE scans SET outcome = ? WHERE key = ?", (outcome, key))

    def ask_again(self, command: str) -> str:
        """Open the latest scan that has ended again, for the operator's `command`.

        Returns
        -------
        str
            The scan's key; empty: there is no such scan.
        """
        with self._transaction() as db:
            row = db.execute("SELECT key FROM scans WHERE outcome != '' ORDER BY number DESC LIMIT 1").fetchone()
            if row is None:
                return ""
            db.execute(
                "UPDATE scans SET outcome = '', asked = ?, asked_times = asked_times + 1 WHERE key = ?",
                (command, row[0]),
            )
            return str(row[0])

    # Steps

    def begin(self, scan: str, step: str, now_s: float) -> StepEntry:
        """Begin a step, unless it is done; return its entry, with the result if it is done."""
        with self._transaction() as db:
            db.execute(
                "INSERT INTO steps (scan, step, state, attempts, changed) VALUES (?, ?, 'running', 1, ?) "
                "ON CONFLICT (scan, step) DO UPDATE SET state = 'running', attempts = attempts + 1, "
                "changed = excluded.changed WHERE state != 'done'",
                (scan, step, now_s),
            )
            return self._step(db, scan, step)

    def finish(self, scan: str, step: str, result: Any, now_s: float) -> None:
        """The step is done with `result`, which JSON can hold."""
        self._set(scan, step, StepState.DONE, json.dumps(result), "", now_s)

    def fail(self, scan: str, step: str, message: str, now_s: float, again: bool) -> None:
        """The step failed; `again`: it may begin again."""
        self._set(scan, step, StepState.PENDING if again else StepState.FAILED, "null", message, now_s)

    def steps(self, scan: str) -> dict[str, StepEntry]:
        """The steps of a scan by name, in the order in which they began."""
        with self._reading() as db:
            names = db.execute("SELECT step FROM steps WHERE scan = ? ORDER BY rowid", (scan,)).fetchall()
            return {name: self._step(db, scan, name) for (name,) in names}

    def recover(self, now_s: float) -> list[tuple[str, str]]:
        """At start, make steps pending that were running when the last agent died; return (scan, step) of each."""
        with self._transaction() as db:
            found = db.execute("SELECT scan, step FROM steps WHERE state = 'running'").fetchall()
            db.execute("UPDATE steps SET state = 'pending', changed = ? WHERE state = 'running'", (now_s,))
            return [(str(scan), str(step)) for scan, step in found]

    # Policy, pushes, lease

    def policy(self) -> PolicyState:
        """The policy's state as it was written last; the initial state before that."""
        found = self._get("policy")
        if found is None:
            return PolicyState()
        return PolicyState(Mode(found["mode"]), found["within"], found["last_looked_s"], Mode(found["resumes"]))

    def keep_policy(self, state: PolicyState, reason: str, now_s: float) -> None:
        """Write the policy's state, and the transition with its reason if the mode has changed."""
        before = self.policy()
        with self._transaction() as db:
            self._keep_policy(db, before, state, reason, now_s)

    def decide(self, scan: str, step: str, state: PolicyState, result: Any, reason: str, now_s: float) -> None:
        """Write the policy's state and its decision for a scan, as a step that is done, in one transaction."""
        before = self.policy()
        with self._transaction() as db:
            self._keep_policy(db, before, state, reason, now_s)
            db.execute(
                "INSERT OR REPLACE INTO steps (scan, step, state, attempts, result, message, changed) "
                "VALUES (?, ?, 'done', 1, ?, ?, ?)",
                (scan, step, json.dumps(result), reason, now_s),
            )

    def transitions(self) -> list[tuple[float, str, str]]:
        """(time, mode, reason) of every change of mode."""
        with self._reading() as db:
            return db.execute("SELECT time, state, reason FROM transitions ORDER BY id").fetchall()

    def want_push(self, sha256: str) -> None:
        """Let this model wait for its push to the edge; it replaces one that waits."""
        with self._transaction() as db:
            self._put(db, "push", sha256)

    @property
    def waiting_push(self) -> str:
        """sha256 of the model that waits for its push; empty: none."""
        return self._get("push") or ""

    def pushed(self, sha256: str) -> None:
        """The edge runs this model. A newer one that waits keeps waiting."""
        with self._transaction() as db:
            db.execute("DELETE FROM kept WHERE name = 'push' AND value = ?", (json.dumps(sha256),))

    def take_lease(self, holder: str, now_s: float, lasts_s: float) -> None:
        """Take the lease of the work folder for `lasts_s` from now, or renew it.

        Raises
        ------
        AgentError
            Another agent has it.
        """
        with self._transaction() as db:
            row = db.execute("SELECT value FROM kept WHERE name = 'lease'").fetchone()
            held = json.loads(row[0]) if row else {}
            left_s = held.get("until_s", 0.0) - now_s
            if held.get("holder", holder) != holder and 0 < left_s <= held.get("lasts_s", lasts_s):
                what = f"the agent {held['holder']} is at work here, and has the lease for {left_s:.0f} s more"
                raise AgentError(
                    what, where=self._where, remedy="stop that agent, or give this one another work folder"
                )
            self._put(db, "lease", {"holder": holder, "until_s": now_s + lasts_s, "lasts_s": lasts_s})

    @property
    def lease_holder(self) -> str:
        """Who took the lease last and did not release it; empty: nobody."""
        held = self._get("lease")
        return str(held["holder"]) if held else ""

    def give_lease(self, holder: str) -> None:
        """Release the lease, so that the next agent need not wait."""
        held = self._get("lease")
        if held and held["holder"] == holder:
            with self._transaction() as db:
                db.execute("DELETE FROM kept WHERE name = 'lease'")

    # The file

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            try:
                yield self._db
            except sqlite3.Error as error:
                raise self._failure(error) from error

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._reading() as db:
            db.execute("BEGIN IMMEDIATE")
            try:
                yield db
            except BaseException:
                db.execute("ROLLBACK")
                raise
            db.execute("COMMIT")

    def _failure(self, error: Exception) -> AgentError:
        remedy = "free some disk space, or see who else uses the file; move a damaged file away: all scans begin again"
        return AgentError(f"the journal failed: {error}", where=self._where, remedy=remedy)

    def _scans(self, condition: str) -> list[ScanEntry]:
        with self._reading() as db:
            columns = "key, number, entered, event, outcome, asked, asked_times"
            rows = db.execute(f"SELECT {columns} FROM scans {condition}").fetchall()
        return [
            ScanEntry(key, number, entered, json.loads(event), outcome, asked, times)
            for key, number, entered, event, outcome, asked, times in rows
        ]

    def _set(self, scan: str, step: str, state: StepState, result: str, message: str, now_s: float) -> None:
        with self._transaction() as db:
            db.execute(
                "UPDATE steps SET state = ?, result = ?, message = ?, changed = ? WHERE scan = ? AND step = ?",
                (state.value, result, message, now_s, scan, step),
            )

    @staticmethod
    def _step(db: sqlite3.Connection, scan: str, step: str) -> StepEntry:
        state, attempts, result, message = db.execute(
            "SELECT state, attempts, result, message FROM steps WHERE scan = ? AND step = ?", (scan, step)
        ).fetchone()
        return StepEntry(step, StepState(state), attempts, json.loads(result), message)

    def _get(self, name: str) -> Any:
        with self._reading() as db:
            row = db.execute("SELECT value FROM kept WHERE name = ?", (name,)).fetchone()
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
