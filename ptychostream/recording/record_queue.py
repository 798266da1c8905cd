"""The queue before the workers, bounded in items and in bytes."""

from __future__ import annotations

import threading
from collections import deque
from typing import Generic, TypeVar

T = TypeVar("T")


class BoundedQueue(Generic[T]):
    """A queue between two threads. `put` waits while it is full; one item always fits, however large.

    Parameters
    ----------
    most, most_bytes
        Largest number of items, and of their bytes.
    """

    def __init__(self, most: int, most_bytes: int) -> None:
        self._most, self._most_bytes = most, most_bytes
        self._items: deque[tuple[T, int]] = deque()
        self._bytes = 0
        self._changed = threading.Condition()

    def put(self, item: T, size: int = 0) -> None:
        with self._changed:
            self._changed.wait_for(lambda: not self._items or self._fits(size))
            self._items.append((item, size))
            self._bytes += size
            self._changed.notify_all()

    def _fits(self, size: int) -> bool:
        return len(self._items) < self._most and self._bytes + size <= self._most_bytes

    def take(self, most: int, most_bytes: int, timeout_s: float = 0.0) -> list[T]:
        """What is there, in order, up to `most` items and, but for the first, `most_bytes`; waits for the first."""
        taken: list[T] = []
        held = 0
        with self._changed:
            self._changed.wait_for(lambda: bool(self._items), timeout_s)
            while self._items and len(taken) < most and (not taken or held + self._items[0][1] <= most_bytes):
                item, size = self._items.popleft()
                taken.append(item)
                held += size
            self._bytes -= held
            if taken:
                self._changed.notify_all()
        return taken
