"""One SQLite file for several threads: each write is a transaction, and one that the disk refuses is tried again."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Protocol, TypeVar

from ptychostream.errors import AgentError

_WRONG_STATEMENT = 1
"""SQLite's result code SQLITE_ERROR: no such table, no such column."""
_T = TypeVar("_T")
Work = Callable[[sqlite3.Connection], _T]


class Patience(Protocol):
    """Decides what follows when the disk refuses a write."""

    def refused(self, reason: str) -> None:
        """Return when it shall be tried again; raise to give up."""
        ...

    def done(self) -> None:
        """What was refused has succeeded."""
        ...


class Database:
    """Methods may be called from any thread.

    Parameters
    ----------
    path
        The file.
    schema
        SQL that creates what is missing.
    version
        Version of the schema.
    shared
        The file is on a file system that several hosts share. SQLite's write-ahead log needs memory that they do not
        share; a rollback journal needs only the file system's locks.
    patience
        Asked when the disk is full or cannot be written for another reason that may pass. None: that is an error.

    Raises
    ------
    AgentError
        The file is no database, is from a later version, or cannot be written.
    """

    def __init__(
        self, path: Path, schema: str, version: int, *, shared: bool = False, patience: Patience | None = None
    ) -> None:
        self._path = path
        self._schema, self._version = schema, version
        self._mode = "DELETE" if shared else "WAL"
        self._patience = patience
        self._lock = threading.Lock()
        self._db = self._try(self._open)

    def close(self) -> None:
        with self._lock:
            self._db.close()

    def read(self, work: Work[_T]) -> _T:
        """The result of `work`. Raises AgentError."""
        return self._try(lambda: self._locked(work))

    def write(self, work: Work[_T]) -> _T:
        """The result of `work` in one transaction, which is on the disk when this returns.

        The work is done again from its beginning when the disk has refused the transaction. Raises AgentError.
        """
        return self._try(lambda: self._locked(lambda db: _transaction(db, work)))

    def _locked(self, work: Work[_T]) -> _T:
        with self._lock:
            return work(self._db)

    def _try(self, attempt: Callable[[], _T]) -> _T:
        refused = False
        while True:
            try:
                result = attempt()
            except (OSError, sqlite3.Error) as error:
                if self._patience is None or not _may_pass(error):
                    raise self._failure(error) from error
                refused = True
                self._patience.refused(f"the journal cannot be written: {error}")
            else:
                if refused and self._patience is not None:
                    self._patience.done()
                return result

    def _open(self) -> sqlite3.Connection:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        db = sqlite3.connect(self._path, timeout=10.0, check_same_thread=False, isolation_level=None)
        try:
            db.execute(f"PRAGMA journal_mode={self._mode}")
            db.execute("PRAGMA synchronous=FULL")
            version = int(db.execute("PRAGMA user_version").fetchone()[0])
            if version > self._version:
                what = f"of version {version}; this program knows {self._version}"
                raise AgentError(what, where=str(self._path), remedy="update the agent, or name another work folder")
            db.executescript(self._schema)
            db.execute(f"PRAGMA user_version={self._version}")
        except BaseException:
            db.close()
            raise
        return db

    def _failure(self, error: Exception) -> AgentError:
        remedy = (
            "free some disk space, or see who else uses the file; move a damaged file away, and the newest of "
            "journal-copies in its place"
        )
        return AgentError(f"the journal failed: {error}", where=str(self._path), remedy=remedy)


def _transaction(db: sqlite3.Connection, work: Work[_T]) -> _T:
    db.execute("BEGIN IMMEDIATE")
    try:
        result = work(db)
        db.execute("COMMIT")
    except BaseException:
        if db.in_transaction:  # SQLite rolls back by itself after some errors
            db.execute("ROLLBACK")
        raise
    return result


def _may_pass(error: Exception) -> bool:
    """Whether the next try may succeed: full disk, disk error, lock.

    A damaged file is a plain DatabaseError. A statement that does not go with the tables of the file never succeeds;
    Python tells that one apart from 3.11 on.
    """
    wrong_statement = getattr(error, "sqlite_errorcode", None) == _WRONG_STATEMENT
    return isinstance(error, OSError | sqlite3.OperationalError) and not wrong_statement
