"""The samples of a position source by the passes of its clock, which may begin anew at every arm or every line.

Each pass has a history of its own. The live one takes samples. Those before it are kept, so that frames that come late
still find their places, as long as all of them together are no more than the live one may hold.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from ptychostream.positions.clock_offset import OffsetEstimate
from ptychostream.positions.interpolation import interpolate
from ptychostream.positions.sample_history import Doubles, SampleHistory

_PASSES = 64


class SourcePass:
    """One pass of the source's clock.

    Attributes
    ----------
    number
        Counted from 0.
    live
        Whether it still takes samples.
    began
        When its first samples came, on this machine's clock; 0: not known.
    cut_short
        Whether the clock began anew while frames of its scan still came.
    least_delay_s
        The least of arrival - time of a block's newest sample, on the two clocks; infinite before any is known. A
        sample was measured no later than its time plus this, on this machine's clock.
    estimates
        The clock offset by the pass of the detector's clock, as it was known when the pass ended.
    times, x, y
        [n] final samples in order of time. Views, valid until the next sample.
    oldest, newest
        Times of the first and of the last of them; infinite and minus infinite without any.
    cut
        Whether older samples have been removed.
    """

    __slots__ = (
        "_at", "_history", "_step", "began", "cut", "cut_short", "estimates", "least_delay_s", "live", "newest",
        "number", "oldest", "times", "x", "y",
    )  # fmt: skip

    def __init__(self, number: int, history: SampleHistory) -> None:
        self.number = number
        self.live = True
        self.began = 0.0
        self.cut_short = False
        self.least_delay_s = math.inf
        self.estimates: dict[int, OffsetEstimate] = {}
        self._history = history
        self._at = self._step = 0  # where the latest time was found, and how far from the one before
        self.refresh()

    def find(self, time: float) -> int:
        """The first sample that is not before `time`, which lies within the pass.

        Frames come in steps: the next one is looked for where the last step leads, which is a third of the time that a
        search through a million samples takes.
        """
        times = self.times
        guess = self._at + self._step
        if 0 < guess < len(times):
            if times.item(guess) < time:
                guess += 1
            elif times.item(guess - 1) >= time:
                guess -= 1
            if 0 < guess < len(times) and times.item(guess - 1) < time <= times.item(guess):
                self._step, self._at = guess - self._at, guess
                return guess
        found = int(times.searchsorted(time))
        self._step, self._at = found - self._at, found
        return found

    def places(self, at: Doubles, tolerance_s: float) -> tuple[Doubles, int]:
        """[2, n] x and y at the times `at`, NaN where there is none, and the number of those that there are.

        See `interpolation.interpolate`.
        """
        found = np.empty((2, len(at)))
        return found, interpolate(self.times, self.x, self.y, at, tolerance_s, found)

    def refresh(self) -> None:
        """The history has changed."""
        self.cut = self._history.cut
        self._see(self._history.final)

    def close(self) -> None:
        """Keep a copy of the samples, because the history is about to be cleared."""
        self.cut, self.live = self._history.cut, False
        self._see(self._history.final.copy())

    def _see(self, rows: Doubles) -> None:
        self.times, self.x, self.y = rows
        self.oldest: float = self.times.item(0) if len(self.times) else math.inf
        self.newest: float = self.times.item(-1) if len(self.times) else -math.inf


class SourceClock:
    """The live pass and those before it.

    Parameters
    ----------
    capacity, max_disorder_s
        See `SampleHistory`.
    """

    def __init__(self, capacity: int, max_disorder_s: float) -> None:
        self.history = SampleHistory(capacity, max_disorder_s, self._restart)
        self.live = SourcePass(0, self.history)
        self._closed: list[SourcePass] = []  # newest first
        self.ended: SourcePass | None = None
        """The pass that the latest `add` has ended."""

    def __iter__(self) -> Iterator[SourcePass]:
        """The passes, newest first."""
        yield self.live
        yield from self._closed

    def get(self, number: int) -> SourcePass | None:
        """The pass of that number; None if it is forgotten."""
        if number == self.live.number:
            return self.live
        return next((one for one in self._closed if one.number == number), None)

    def is_cut_short(self, one: SourcePass, received: float) -> bool:
        """Whether a frame shows, as the first one, that the clock began anew within the scan that a pass places.

        The frame is later than the samples of the pass. If it came before the clock began anew, it waited for samples
        beyond the end, which is no fault of the restart.

        Parameters
        ----------
        received
            When it came, on this machine's clock; 0: not known.
        """
        after = self.get(one.number + 1)
        if one.cut_short or after is None or 0 < received <= after.began:
            return False
        one.cut_short = True
        return True

    @property
    def single(self) -> bool:
        """Whether there is no pass but the live one."""
        return not self._closed

    def add(self, block: Doubles) -> None:
        """Take a [3, n] block of samples."""
        self.ended = None
        self.history.add(block)
        self.live.refresh()

    def settle(self) -> None:
        """No more samples will come: all are final."""
        self.history.settle()
        self.live.refresh()

    @property
    def held(self) -> int:
        """The number of samples in memory."""
        return len(self.history) + sum(len(one.times) for one in self._closed)

    def _restart(self) -> None:
        self.live.close()
        self.ended = self.live
        self._closed.insert(0, self.live)
        self.live = SourcePass(self.live.number + 1, self.history)
        held = np.cumsum([len(one.times) for one in self._closed])
        kept = max(1, int(np.searchsorted(held, self.history.capacity, side="right")))
        del self._closed[min(kept, _PASSES) :]
