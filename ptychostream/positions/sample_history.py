"""A bounded history of a stage's position samples, in order of time and without duplicates.

A sample is final once the watermark has passed it. No later sample can lie between two final samples, so an
interpolation between them never changes. The watermark stays `max_disorder_s` behind the newest sample of the blocks
taken so far. A sample that comes at or behind the watermark is left out and counted. The final samples
therefore do not depend on the order of the samples, if no sample comes more than `max_disorder_s` behind one of an
earlier block.

A history holds one pass of the source's clock. Samples that go back in time are either stragglers or the next pass of
a clock that began anew, as a PandABox's does at every arm. Two passes overlap: the samples of the second lie between
those of the first, or repeat their times with other values. Stragglers fill a gap. So the history begins anew when
samples behind the watermark, in rising order and with nothing newer among them, enclose a held sample, and no sample
of the new pass is lost.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ptychostream.errors import GeometryError
from ptychostream.positions.sample_counts import SampleCounts

_RESTART_S = 1.0
"""The clock began anew if samples lie behind the watermark for this time, and none lies before it."""
_ODD = 3
"""Fewer samples than this that go back and are no duplicates show nothing: they are stragglers, or wrong."""

Doubles = NDArray[np.float64]


class _Behind:
    """Samples that came behind the watermark since the last newer one, while they rise: perhaps the next pass."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self.clear()

    def clear(self) -> None:
        self._blocks: list[Doubles] = []
        self._number = 0
        self._high = -math.inf
        self._odd_low, self._odd_high = math.inf, -math.inf  # of the samples that are no duplicates
        self._odd = 0
        self.duplicate = self.conflicting = self.late = 0

    @property
    def samples(self) -> Doubles:
        return np.concatenate(self._blocks, axis=1)

    def take(self, block: Doubles, again: NDArray[np.bool_], same: NDArray[np.bool_]) -> None:
        """Take samples in order of time; `again`: there is a sample of that time; `same`: of that place too."""
        if block[0, 0] < self._high or self._number + block.shape[1] > self._capacity:
            self.clear()
        self._blocks.append(block)
        self._number += block.shape[1]
        self._high = float(block[0, -1])
        odd = block[0, ~same]
        if len(odd):
            self._odd_low, self._odd_high = min(self._odd_low, float(odd[0])), max(self._odd_high, float(odd[-1]))
            self._odd += len(odd)
        self.duplicate += int(np.count_nonzero(same))
        self.conflicting += int(np.count_nonzero(again & ~same))
        self.late += int(np.count_nonzero(~again))

    def is_a_pass(self, held: Doubles) -> bool:
        """Whether these samples overlap the held times."""
        low, high = self._odd_low, self._odd_high
        if self._odd < _ODD or not low < high:
            return False
        enclosed = np.searchsorted(held, high, side="right") > np.searchsorted(held, low, side="left")
        return bool(enclosed) or high - low >= _RESTART_S


class SampleHistory:
    """The latest samples in order of time.

    Parameters
    ----------
    capacity
        The number of samples in memory. The oldest is removed first.
    max_disorder_s
        How far behind the newest sample a sample may still come, seconds. Every frame waits that much longer.
    on_restart
        Called before the history begins anew, while it still holds the samples of the pass before, all of them final.
    """

    def __init__(
        self, capacity: int, max_disorder_s: float = 0.0, on_restart: Callable[[], None] = lambda: None
    ) -> None:
        self.capacity = capacity
        self.max_disorder_s = max_disorder_s
        self.counts = SampleCounts()
        self._on_restart = on_restart
        self._rows = np.empty((3, 2 * capacity))  # time, x, y; moved to the front only at the array's end
        self.clear()

    def clear(self) -> None:
        """Remove all samples. The counts stay."""
        self._first = self._end = 0
        self._open = np.empty((3, 0))  # samples newer than the watermark, in order of time
        self._watermark = -np.inf
        self._behind = _Behind(self.capacity)
        self.cut = False
        """Whether older samples have been removed."""

    def __len__(self) -> int:
        return self._end - self._first + self._open.shape[1]

    @property
    def final(self) -> Doubles:
        """[3, n] time, x, y of the final samples, in order of time. A view, valid until the next `add`.

        A sample whose time was sent with two places has none: its x and y are NaN.
        """
        return self._rows[:, self._first : self._end]

    @property
    def oldest(self) -> float:
        """Time of the first final sample. Infinite without samples."""
        return self._rows.item(0, self._first) if self._end > self._first else math.inf

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
        if not behind.any():
            self._take_fresh(block)
            return
        late, fresh = block[:, behind], block[:, ~behind]
        if not behind[0]:  # the clock may begin anew within the block
            self._take_fresh(fresh)
            fresh = fresh[:, :0]
        late = late[:, np.argsort(late[0], kind="stable")]
        self._take_behind(late)
        if self._behind.is_a_pass(self.final[0]):
            self._restart()
        self._take_fresh(fresh)

    def settle(self) -> None:
        """Make all samples final, because no more will come."""
        self._move_to_final(self._open.shape[1])

    def _take_behind(self, late: Doubles) -> None:
        held = self.final
        at = np.minimum(np.searchsorted(held[0], late[0]), max(held.shape[1] - 1, 0))
        if held.shape[1]:
            again = held[0, at] == late[0]
            same = again & (held[1:, at] == late[1:]).all(axis=0)
        else:
            again = same = np.zeros(late.shape[1], np.bool_)
        self._behind.take(late, again, same)
        self.counts.duplicate += int(np.count_nonzero(same))
        self.counts.conflicting += int(np.count_nonzero(again & ~same))
        self.counts.late += int(np.count_nonzero(~again))

    def _restart(self) -> None:
        behind, counts = self._behind, self.counts
        counts.duplicate -= behind.duplicate
        counts.conflicting -= behind.conflicting
        counts.late -= behind.late
        counts.restarts += 1
        self.settle()
        self._on_restart()
        self.clear()
        self._take_fresh(behind.samples)

    def _take_fresh(self, fresh: Doubles) -> None:
        if not fresh.shape[1]:
            return
        self._behind.clear()
        merged = np.concatenate([self._open, fresh], axis=1)
        if self._open.shape[1] or (np.diff(fresh[0]) <= 0).any():
            merged = self._in_order(merged)
        self._open = merged
        self._watermark = max(self._watermark, float(self._open[0, -1]) - self.max_disorder_s)
        final = int(np.searchsorted(self._open[0], self._watermark, side="right"))
        # The samples that are not final are bounded too: if they exceed the capacity, the oldest become final early.
        self._move_to_final(max(final, self._open.shape[1] - self.capacity))

    def _in_order(self, merged: Doubles) -> Doubles:
        """In order of time, each time once; a time with two places has none."""
        merged = merged[:, np.argsort(merged[0], kind="stable")]
        again = merged[0, 1:] == merged[0, :-1]
        if not again.any():
            return merged
        other = again & (merged[1:, 1:] != merged[1:, :-1]).any(axis=0)
        keep = np.concatenate([[True], ~again])
        self.counts.conflicting += int(np.count_nonzero(other))
        self.counts.duplicate += int(np.count_nonzero(again & ~other))
        first = np.cumsum(keep) - 1  # of each sample: the kept one of its time
        merged, odd = merged[:, keep], first[1:][other]
        merged[1:, odd] = np.nan
        return merged

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
