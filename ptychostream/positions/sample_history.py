"""A bounded history of a stage's position samples, in order of time and without duplicates.

A sample is final once the watermark has passed it. No later sample can lie between two final samples, so an
interpolation between them never changes. The watermark stays `max_disorder_s` behind the newest sample of the blocks
taken so far. A sample that comes at or behind the watermark is left out and counted as late. The final samples
therefore do not depend on the order of the samples, if no sample comes more than `max_disorder_s` behind one of an
earlier block.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ptychostream.errors import GeometryError

_RESTART_S = 1.0
"""The clock was set back if a run of samples lies behind the watermark for this time and none lies before it."""

Doubles = NDArray[np.float64]


@dataclass
class SampleCounts:
    """Counts of samples: received = held + forgotten + duplicate + late + bad + those that a restart removed.

    Attributes
    ----------
    received
        All samples.
    duplicate
        A sample of that time was there already. The first one stays.
    late
        The sample came at or behind the watermark.
    bad
        Time or position is not finite.
    forgotten
        The oldest samples, removed to make room.
    restarts
        How often the history was cleared because the source's clock was set back.
    """

    received: int = 0
    duplicate: int = 0
    late: int = 0
    bad: int = 0
    forgotten: int = 0
    restarts: int = 0


class SampleHistory:
    """The latest samples in order of time.

    Parameters
    ----------
    capacity
        The number of samples in memory. The oldest is removed first.
    max_disorder_s
        How far behind the newest sample a sample may still come, seconds. Every frame waits that much longer.
    """

    def __init__(self, capacity: int, max_disorder_s: float = 0.0) -> None:
        self.capacity = capacity
        self.max_disorder_s = max_disorder_s
        self.counts = SampleCounts()
        self._rows = np.empty((3, 2 * capacity))  # time, x, y; moved to the front only at the array's end
        self.clear()

    def clear(self) -> None:
        """Remove all samples. The counts stay."""
        self._first = self._end = 0
        self._open = np.empty((3, 0))  # samples newer than the watermark, in order of time
        self._watermark = -np.inf
        self._behind: tuple[float, float] | None = None  # first and last time of a run of late samples
        self.cut = False
        """Whether older samples have been removed."""

    def __len__(self) -> int:
        return self._end - self._first + self._open.shape[1]

    @property
    def final(self) -> Doubles:
        """[3, n] time, x, y of the final samples, in order of time. A view, valid until the next `add`."""
        return self._rows[:, self._first : self._end]

    @property
    def newest_final(self) -> float:
        """Time of the last final sample. Minus infinity without samples."""
        return self._rows.item(0, self._end - 1) if self._end > self._first else -math.inf

    @property
    def newest(self) -> float:
        """Time of the newest sample, final or not. Minus infinity without samples."""
        return float(self._open[0, -1]) if self._open.shape[1] else self.newest_final

    def add(self, block: Doubles) -> None:
        """Take a [3, n] block of samples in any order (see `sample_block`)."""
        counts = self.counts
        counts.received += block.shape[1]
        good = np.isfinite(block).all(axis=0)
        counts.bad += int(np.count_nonzero(~good))
        block = block[:, good]
        behind = block[0] <= self._watermark
        if behind.any():
            late = self._count_behind(block[0, behind])
            if self._clock_was_set_back(late, newer=not behind.all()):
                counts.restarts += 1
                self.clear()
                behind = np.zeros_like(behind)
        fresh = block[:, ~behind]
        if fresh.shape[1]:
            self._behind = None
            self._take(fresh)

    def settle(self) -> None:
        """Make all samples final, because no more will come."""
        self._move_to_final(self._open.shape[1])

    def _count_behind(self, times: Doubles) -> Doubles:
        """Count samples behind the watermark. Returns the times of those that are no duplicates."""
        held = self.final[0]
        at = np.minimum(np.searchsorted(held, times), max(len(held) - 1, 0))
        again = held[at] == times if len(held) else np.zeros(len(times), np.bool_)
        self.counts.duplicate += int(np.count_nonzero(again))
        late: Doubles = times[~again]
        self.counts.late += len(late)
        return late

    def _clock_was_set_back(self, late: Doubles, newer: bool) -> bool:
        if newer or not len(late):
            return False
        low, high = float(late.min()), float(late.max())
        if self._behind is not None:
            low, high = min(low, self._behind[0]), max(high, self._behind[1])
        self._behind = low, high
        return high - low >= _RESTART_S

    def _take(self, fresh: Doubles) -> None:
        merged = np.concatenate([self._open, fresh], axis=1)
        order = np.argsort(merged[0], kind="stable")  # stable: of two samples with one time the earlier arrival stays
        merged = merged[:, order]
        keep = np.ones(merged.shape[1], np.bool_)
        keep[1:] = merged[0, 1:] != merged[0, :-1]
        self.counts.duplicate += int(np.count_nonzero(~keep))
        self._open = merged[:, keep]
        self._watermark = max(self._watermark, float(self._open[0, -1]) - self.max_disorder_s)
        final = int(np.searchsorted(self._open[0], self._watermark, side="right"))
        # The samples that are not final are bounded too: if they exceed the capacity, the oldest become final early.
        self._move_to_final(max(final, self._open.shape[1] - self.capacity))

    def _move_to_final(self, number: int) -> None:
        if number == 0:
            return
        moved, self._open = self._open[:, :number], self._open[:, number:]
        self._watermark = max(self._watermark, float(moved[0, -1]))
        if number > self.capacity:
            self._forget(number - self.capacity)
            moved = moved[:, -self.capacity :]
        held, new = self._end - self._first, moved.shape[1]
        excess = held + new - self.capacity
        if excess > 0:
            self._forget(excess)
            self._first += excess
            held -= excess
        if self._end + new > self._rows.shape[1]:
            self._rows[:, :held] = self._rows[:, self._first : self._end].copy()
            self._first, self._end = 0, held
        self._rows[:, self._end : self._end + new] = moved
        self._end += new

    def _forget(self, number: int) -> None:
        self.counts.forgotten += number
        self.cut = True


def sample_block(times: ArrayLike, x: ArrayLike, y: ArrayLike) -> Doubles:
    """A [3, n] block from three columns.

    Raises
    ------
    GeometryError
        The columns are not numbers, not one-dimensional, or of different lengths.
    """
    try:
        columns = [np.asarray(column, np.float64) for column in (times, x, y)]
    except (TypeError, ValueError) as error:
        raise GeometryError(f"not numbers: {error}", where="position samples", remedy="send numeric arrays") from error
    shapes = {column.shape for column in columns}
    if len(shapes) != 1 or columns[0].ndim != 1:
        raise GeometryError(
            "time, x and y have shapes " + ", ".join(str(column.shape) for column in columns),
            where="position samples",
            remedy="send three one-dimensional arrays of one length",
        )
    return np.stack(columns)
