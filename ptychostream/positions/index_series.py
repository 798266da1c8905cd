"""Positions by a running index: one count of a source, from its start to the next one.

Several samples may belong to one frame: those with index f·k … f·k + k - 1 belong to frame f of the series. The
frame's position is their mean, or the position at the middle of them. It is known when all of them are there, and never
changes; but a sample that comes again with another place voids it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ptychostream.errors import GeometryError
from ptychostream.positions.positions import NeverPlaced
from ptychostream.positions.sample_counts import SampleCounts

Doubles = NDArray[np.float64]
Combine = Literal["mean", "middle"]

_EMPTY, _KNOWN, _BAD, _VOID = range(4)
_WHY = {_BAD: "its position is not a number", _VOID: "two different positions were sent for its index"}
_WHERE = "positions by index"
LARGEST_INDEX = 2**52


class IndexSeries:
    """The samples of one series.

    Parameters
    ----------
    counts
        Shared by all series of a source.
    per_frame
        Samples that belong to one frame.
    combine
        What becomes of them: their mean, or the position in the middle of them, interpolated if they are even in
        number.
    capacity
        Samples in memory, at the most. The oldest are removed first.
    never_before
        Samples with a lower index will never come.

    Attributes
    ----------
    start, end
        The lowest index that came, and one more than the highest; both -1 before any.
    held
        The number of samples in memory.
    """

    def __init__(
        self, counts: SampleCounts, per_frame: int, combine: Combine, capacity: int, never_before: int = 0
    ) -> None:
        self._counts = counts
        self._most_frames = max(capacity // per_frame, 1)
        self._per_frame = per_frame
        middle = np.array([(per_frame - 1) // 2, per_frame // 2])
        self._of_frame = middle if combine == "middle" else np.arange(per_frame)
        self._never_before = -(-never_before // per_frame)  # the first frame that can be known
        self.start = self.end = -1
        self.held = 0
        self._base = 0  # the frame of element 0 of the arrays of frames
        self._frames = np.zeros((3, 0))  # x, y, state by frame
        self._rows = np.zeros((2, 0))  # x, y by sample
        self._state = np.zeros(0, np.uint8)  # by sample

    @property
    def frames_end(self) -> int:
        """Frames from this one on are certainly not known yet."""
        return -(-self.end // self._per_frame) if self.end >= 0 else 0

    @property
    def unknown_from(self) -> int:
        """Frames from this one on are certainly not known yet, and may still come."""
        return max(self.frames_end, self._never_before)

    def equal(self, first: int, x: Doubles, y: Doubles) -> bool:
        """Whether every sample that is held already has the same place here."""
        state, rows, given = self._overlap(first, x, y)
        return bool((_same(rows, given) | (state == _EMPTY)).all())

    def add(self, first: int, x: Doubles, y: Doubles) -> None:
        """Take the samples with index `first`, `first` + 1, …"""
        if len(x) > self._most_frames * self._per_frame:
            half = len(x) // 2
            self.add(first, x[:half], y[:half])
            self.add(first + half, x[half:], y[half:])
            return
        self._forget_before(-(-(first + len(x)) // self._per_frame) - self._most_frames, first // self._per_frame)
        late = min(max(self._base * self._per_frame - first, 0), len(x))
        self._counts.late += late
        first, x, y = first + late, x[late:], y[late:]
        if not len(x):
            return
        self.start = first if self.start < 0 else min(self.start, first)
        self.end = max(self.end, first + len(x))
        self._make_room(first, first + len(x))
        at = slice(first - self._base * self._per_frame, first + len(x) - self._base * self._per_frame)
        state, rows, given = self._state[at], self._rows[:, at], np.stack([x, y])
        new: NDArray[np.bool_] = state == _EMPTY
        if not new.all():
            same: NDArray[np.bool_] = ~new & _same(rows, given)
            other: NDArray[np.bool_] = ~new & ~same
            self._counts.duplicate += int(np.count_nonzero(same))
            self._counts.conflicting += int(np.count_nonzero(other))
            state[other] = _VOID
        finite = np.isfinite(given[0]) & np.isfinite(given[1])
        self._counts.bad += int(np.count_nonzero(new & ~finite))
        rows[:, new] = given[:, new]
        state[new] = np.where(finite[new], _KNOWN, _BAD)
        self.held += int(np.count_nonzero(new))
        self._reduce(first // self._per_frame, (first + len(x) - 1) // self._per_frame + 1)

    def place(self, frame: int) -> tuple[float, float] | None:
        """(x, y) of a frame of the series, from 0. None: not known yet. Raises NeverPlaced."""
        at = frame - self._base
        if 0 <= at < self._frames.shape[1]:
            state = self._frames.item(2, at)
            if state == _KNOWN:
                return self._frames.item(0, at), self._frames.item(1, at)
            if state:
                raise NeverPlaced(_WHY[int(state)])
        if frame < 0:
            raise NeverPlaced("it comes before the first position")
        if frame < self._never_before:
            raise NeverPlaced("its position was sent before anyone listened")
        if at < 0:
            raise NeverPlaced("its position is no longer in memory: raise the capacity")
        return None

    def places(self, frames: Sequence[int]) -> list[tuple[float, float]] | None:
        """(x, y) of frames of the series, in rising order; None: not all of them are known."""
        first, last = frames[0] - self._base, frames[-1] - self._base
        if first < 0 or last >= self._frames.shape[1]:
            return None
        found = self._frames[:, first : last + 1]
        if last - first >= len(frames):
            found = found[:, np.array(frames) - frames[0]]
        x, y, state = found.tolist()
        return list(zip(x, y, strict=True)) if min(state) == max(state) == _KNOWN else None

    def clear(self) -> None:
        """Remove all samples."""
        self._forget_before(self.frames_end, self.frames_end)

    def _overlap(self, first: int, x: Doubles, y: Doubles) -> tuple[NDArray[np.uint8], Doubles, Doubles]:
        base = self._base * self._per_frame
        low = min(max(first, base), first + len(x))
        high = max(low, min(first + len(x), base + len(self._state)))
        given = np.stack([x, y])[:, low - first : high - first]
        return self._state[low - base : high - base], self._rows[:, low - base : high - base], given

    def _forget_before(self, frame: int, keep: int) -> None:
        """Remove the samples of frames before this one; up to a quarter more before `keep`, as the rest is copied."""
        if frame <= self._base:
            return
        frame = min(frame + self._most_frames // 4, keep)
        frames = min(frame - self._base, self._frames.shape[1])
        rows = frames * self._per_frame
        gone = int(np.count_nonzero(self._state[:rows]))
        self._counts.forgotten += gone
        self.held -= gone
        self._frames, self._rows, self._state = (
            self._frames[:, frames:].copy(), self._rows[:, rows:].copy(), self._state[rows:].copy(),
        )  # fmt: skip
        self._base = frame

    def _make_room(self, first: int, end: int) -> None:
        if not len(self._state):
            begin = first // self._per_frame
            self._base = max(self._base, 0 if begin < self._most_frames // 2 else begin)
        grow = max(-(-end // self._per_frame) - self._base - self._frames.shape[1], 0)
        if grow:
            grow = max(grow, self._frames.shape[1] // 2, 64)
            self._frames = np.pad(self._frames, ((0, 0), (0, grow)))
            self._rows = np.pad(self._rows, ((0, 0), (0, grow * self._per_frame)))
            self._state = np.pad(self._state, (0, grow * self._per_frame))

    def _reduce(self, begin: int, end: int) -> None:
        """Compute the positions of frames whose samples have changed."""
        begin, end = begin - self._base, end - self._base
        rows = slice(begin * self._per_frame, end * self._per_frame)
        state = self._state[rows].reshape(-1, self._per_frame)
        known = (state == _KNOWN).all(axis=1)
        worst = state.max(axis=1)
        samples = self._rows[:, rows].reshape(2, -1, self._per_frame)[:, :, self._of_frame]
        before = self._frames[2, begin:end]
        self._frames[:2, begin:end] = samples.mean(axis=2) if samples.shape[2] > 1 else samples[:, :, 0]
        before[:] = np.where(known, _KNOWN, np.where(worst > _KNOWN, worst, _EMPTY))


def sample_runs(
    index: ArrayLike, x: ArrayLike, y: ArrayLike, per_frame: int, counts: Literal["samples", "frames"]
) -> Iterator[tuple[int, Doubles, Doubles]]:
    """Split the samples of one update into runs of consecutive indices: (first index, x, y).

    Parameters
    ----------
    index
        The index of the first sample, or of every sample.
    x, y
        [n] places.
    per_frame, counts
        If the index counts frames, `per_frame` samples in a row have one index.

    Raises
    ------
    GeometryError
        The arguments are not numbers of one length, an index is not a whole number, or a frame does not have
        `per_frame` samples.
    """
    try:
        at, first, second = (np.asarray(column, np.float64) for column in (index, x, y))
    except (TypeError, ValueError) as error:
        raise GeometryError(f"not numbers: {error}", where=_WHERE, remedy="send numeric arrays") from error
    if first.ndim != 1 or first.shape != second.shape or at.shape not in ((), (1,), first.shape):
        raise GeometryError(
            f"index, x and y have shapes {at.shape}, {first.shape} and {second.shape}",
            where=_WHERE,
            remedy="send as many y as x, and the index of the first sample or of every sample",
        )
    if not first.size:
        return
    at = at.reshape(-1)
    if not (np.isfinite(at) & (at == np.floor(at)) & (at >= 0) & (at < LARGEST_INDEX)).all():
        wrong = at[~(np.isfinite(at) & (at == np.floor(at)) & (at >= 0) & (at < LARGEST_INDEX))][0]
        raise GeometryError(f"index {wrong:g}", where=_WHERE, remedy="count samples or frames by whole numbers from 0")
    if at.size == first.size and first.size > 1:
        rows = _rows_of_frames(at, per_frame) if counts == "frames" else at
    else:
        if counts == "frames" and first.size % per_frame:
            raise _uneven(f"{first.size} samples from index {at[0]:g}", per_frame)
        rows = at[0] * (per_frame if counts == "frames" else 1) + np.arange(first.size)
    for part in np.split(np.arange(first.size), np.flatnonzero(np.diff(rows) != 1) + 1):
        yield int(rows[part[0]]), first[part], second[part]


def _rows_of_frames(at: Doubles, per_frame: int) -> Doubles:
    """The index of each sample where `per_frame` samples in a row carry the index of their frame."""
    begins = np.flatnonzero(np.diff(at, prepend=np.nan) != 0)
    lengths = np.diff(np.append(begins, len(at)))
    if (lengths % per_frame).any():
        wrong = int(np.flatnonzero(lengths % per_frame)[0])
        raise _uneven(f"{lengths[wrong]} samples of index {at[begins[wrong]]:g}", per_frame)
    within = np.arange(len(at)) - np.repeat(begins, lengths)
    return np.asarray(at * per_frame + within % per_frame)


def _uneven(what: str, per_frame: int) -> GeometryError:
    return GeometryError(
        f"{what}, but a frame has {per_frame}",
        where=_WHERE,
        remedy='send all samples of a frame in one update, correct samples_per_frame, or set index_counts = "samples"',
    )


def _same(rows: Doubles, given: Doubles) -> NDArray[np.bool_]:
    equal: NDArray[np.bool_] = ((rows == given) | (np.isnan(rows) & np.isnan(given))).all(axis=0)
    return equal
