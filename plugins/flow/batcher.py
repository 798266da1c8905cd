"""Frames gathered into batches. Passive: the time is an argument, and there is no lock here."""

from __future__ import annotations

import math
from collections import deque

from ptychostream.frames.frames import PlacedFrame

MOST_AT_ONCE = 128
"""The largest number of frames in one call of the engine: larger calls are not faster per frame."""


def frames_at_once(batch: int, backlog_batches: int) -> int:
    """Number of frames in one call of the engine when many wait: `backlog_batches` batches, at most `MOST_AT_ONCE`."""
    return max(batch, min(batch * backlog_batches, MOST_AT_ONCE // batch * batch))


class Batcher:
    """A bounded queue that lets a batch go when it is full, when its oldest frame has waited long enough, or
    when it was flushed. A batch never reaches across a flush, and a new scan id flushes: a batch is of one scan.
    Where more frames wait than a batch, several batches leave as one: the latency of a light load is that of
    the small batch, the throughput of a heavy one that of the large.

    Parameters
    ----------
    batch
        Frames in a full batch.
    max_latency_s
        How long a frame may wait for the batch to fill.
    capacity
        Frames held at most.
    drop_oldest
        Whether the oldest frame is dropped when the queue is full, or the one that comes.
    at_once
        Largest number of frames that leave together; at least one batch.
    max_bytes
        Memory that the counts of the held frames may take. One frame is held whatever its size is.
    """

    def __init__(
        self,
        batch: int,
        max_latency_s: float,
        capacity: int,
        drop_oldest: bool = False,
        at_once: int = 1,
        max_bytes: int = 1 << 40,
    ) -> None:
        self.max_bytes = max_bytes
        self.held_bytes = 0
        """Memory of the held frames' counts."""
        self.batch = batch
        self.at_once = at_once
        self.max_latency_s = max_latency_s
        self.capacity = capacity
        self.drop_oldest = drop_oldest
        self.full_at = -math.inf
        """When the queue was last seen full."""
        self._queue: deque[PlacedFrame] = deque()
        self._left = 0
        self._flushes: deque[int] = deque()  # values of `entered` at which a batch ends

    @property
    def waiting(self) -> int:
        """Frames held."""
        return len(self._queue)

    @property
    def use(self) -> float:
        """Used share of the queue, 0 to 1."""
        return max(len(self._queue) / self.capacity, min(1.0, self.held_bytes / self.max_bytes))

    @property
    def entered(self) -> int:
        """Number of frames taken in since the start; when `left` reaches it, they have all left."""
        return self._left + len(self._queue)

    @property
    def left(self) -> int:
        """Number of frames that have left since the start."""
        return self._left

    @property
    def ready(self) -> bool:
        """Whether a batch may leave whatever the time is."""
        return bool(self._flushes) or len(self._queue) >= self.batch

    def add(self, placed: PlacedFrame, now: float) -> list[PlacedFrame]:
        """Add a frame; return the frames that were dropped for it, or the same one."""
        dropped = []
        while self._is_full(placed):
            self.full_at = now
            if not self.drop_oldest:
                return [placed]
            dropped.append(self._pop())
        if self._queue and self._queue[-1].frame.scan != placed.frame.scan:
            self.flush()
        placed.queued = now
        self._queue.append(placed)
        self.held_bytes += placed.frame.counts.nbytes
        return dropped

    def flush(self) -> None:
        """Let the held frames leave at once."""
        if self._queue and (not self._flushes or self._flushes[-1] < self.entered):
            self._flushes.append(self.entered)

    def due(self, now: float) -> float | None:
        """Seconds until a batch may leave; 0 when one may, None when there is nothing to wait for."""
        if not self._queue:
            return None
        if self.ready:
            return 0.0
        return max(0.0, self._queue[0].queued + self.max_latency_s - now)

    def take(self, now: float) -> list[PlacedFrame]:
        """The batch that is due, whole batches where more frames wait; empty when none is due."""
        if self.due(now) != 0.0:
            return []
        end = self._flushes[0] if self._flushes else self.entered
        frames = min(max(self.batch, self.at_once), end - self._left)
        if frames > self.batch:
            frames -= frames % self.batch  # the engine pads what is no whole batch
        return [self._pop() for _ in range(frames)]

    def clear(self) -> list[PlacedFrame]:
        """Remove and return every frame; the caller counts them."""
        return [self._pop() for _ in range(len(self._queue))]

    def _pop(self) -> PlacedFrame:
        self._left += 1
        if self._flushes and self._flushes[0] <= self._left:
            self._flushes.popleft()
        placed = self._queue.popleft()
        self.held_bytes -= placed.frame.counts.nbytes
        return placed

    def _is_full(self, placed: PlacedFrame) -> bool:
        beyond = self.held_bytes + placed.frame.counts.nbytes > self.max_bytes
        return len(self._queue) >= self.capacity or (beyond and bool(self._queue))
