"""One change of the model at a time, and the way for a rollback to go before all others."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import CancelledError, Future
from contextlib import contextmanager

from ptychostream.errors import EngineError
from ptychostream.plugins.swap import await_swap


class Change:
    """A change that is being made.

    Attributes
    ----------
    give_way
        Set when a rollback has come: the change must end.
    """

    def __init__(self, what: str) -> None:
        self.give_way = threading.Event()
        self._what = what
        self._lock = threading.Lock()
        self._swap: Future[str] | None = None

    def interrupt(self) -> None:
        """Make it give way. A swap that the inference thread has begun is completed."""
        with self._lock:
            self.give_way.set()
            if self._swap is not None:
                self._swap.cancel()

    def check(self) -> None:
        """Raise EngineError where it must give way."""
        if self.give_way.is_set():
            raise EngineError("gave way to RollbackModel", where=self._what, remedy="load the model again")

    def wait(self, swap: Future[str], deadline_s: float) -> None:
        """Wait until the engine is in use.

        Raises
        ------
        EngineError
            It gave way, or the engine was not ready in time. Other errors are those of the swap.
        """
        with self._lock:
            self._swap = swap
            if self.give_way.is_set():
                swap.cancel()
        try:
            await_swap(swap, deadline_s, self._what)
        except CancelledError:
            self.check()
            raise


class Changes:
    """Makes changes wait for each other. A rollback does not wait: what is under way or waits gives way to it."""

    def __init__(self) -> None:
        self._turn = threading.Lock()
        self._lock = threading.Lock()
        self._begun: list[Change] = []  # under way or waiting

    @contextmanager
    def one(self, what: str) -> Iterator[Change]:
        """Wait for the turn of a change. Raises EngineError where a rollback has come meanwhile."""
        change = Change(what)
        with self._lock:
            self._begun.append(change)
        try:
            with self._turn:
                change.check()
                yield change
        finally:
            with self._lock:
                self._begun.remove(change)

    @property
    def waiting(self) -> int:
        """Number of changes that wait for the one under way."""
        with self._lock:
            return max(0, len(self._begun) - 1)

    def interrupt(self) -> None:
        """Make all changes give way, the one under way and those that wait."""
        with self._lock:
            others = list(self._begun)
        for other in others:
            other.interrupt()

    @contextmanager
    def before_others(self, what: str) -> Iterator[Change]:
        """A change that the others, other rollbacks as well, give way to."""
        self.interrupt()
        with self.one(what) as change:
            yield change
