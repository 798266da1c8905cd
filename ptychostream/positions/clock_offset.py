"""Estimate the offset between two clocks from the time stamps of two streams and their times of arrival.

arrival - stamp = delay - error of the sender's clock. Queues and scheduling only make a delay longer, so the minimum
of many differences has the clock's error and the shortest delay only: the minimum filter of NTP (Mills, RFC 5905,
section 10). For two streams that arrive at one process, the difference of the two minima is the offset between the two
clocks plus the difference of the two shortest delays. One-way messages cannot separate these two. The user must
therefore give the known difference of the delays (exposure and readout of the detector, buffering of the position
source).
"""

from __future__ import annotations

import operator
from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

_BUCKET_S = 0.25
_BUCKETS = 120
_LEAST_BUCKETS = 4
_LEAST_NOTES = 8
_SET_BACK_S = 1.0


class OffsetEstimate(NamedTuple):
    """A clock offset and its uncertainty, both in seconds.

    The uncertainty is the spread of the minima. It does not cover an error that all minima share.
    """

    offset_s: float
    uncertainty_s: float


class DelayMinima:
    """The minimum of arrival - stamp over the last half minute. It forgets older minima, because clocks drift."""

    def __init__(self) -> None:
        self._buckets: deque[tuple[int, float]] = deque(maxlen=_BUCKETS)  # the bucket's number, its minimum
        self.clear()

    def clear(self) -> None:
        self._buckets.clear()
        self._notes = 0
        self._begin = self._end = 0.0  # of the newest bucket
        self._least = 0.0  # in it
        self.latest = 0.0
        """Time of arrival of the last noted message."""

    def note(self, arrival: float, stamp: float) -> None:
        """Note a message's time of arrival and its time stamp, both in seconds, each by its own clock."""
        difference = arrival - stamp
        self._notes += 1
        self.latest = arrival
        if self._begin <= arrival < self._end:  # most messages end here: it runs for every frame
            if difference < self._least:
                self._least = difference
                self._buckets[-1] = (self._buckets[-1][0], difference)
            return
        number = int(arrival // _BUCKET_S)
        self._begin, self._end, self._least = number * _BUCKET_S, (number + 1) * _BUCKET_S, difference
        self._buckets.append((number, difference))
        while self._buckets[0][0] <= number - _BUCKETS:
            self._buckets.popleft()

    def note_all(self, arrivals: Sequence[float], stamps: Sequence[float]) -> None:
        """Note some messages in rising order of arrival, as `note` does one by one."""
        if self._begin <= arrivals[0] and arrivals[-1] < self._end:
            least = min(map(operator.sub, arrivals, stamps))
            self._notes += len(arrivals)
            self.latest = arrivals[-1]
            if least < self._least:
                self._least = least
                self._buckets[-1] = (self._buckets[-1][0], least)
            return
        for arrival, stamp in zip(arrivals, stamps, strict=True):
            self.note(arrival, stamp)

    @property
    def known(self) -> bool:
        """Whether enough messages have arrived for a reliable minimum."""
        return len(self._buckets) >= _LEAST_BUCKETS and self._notes >= _LEAST_NOTES

    def least(self) -> OffsetEstimate:
        """The minimum, and the median distance of the buckets' minima above it."""
        minima = np.array([least for _, least in list(self._buckets)])  # another thread may add one
        return OffsetEstimate(float(minima.min()), float(np.median(minima) - minima.min()))


class ClockOffset:
    """Estimates position source's clock - detector's clock.

    Parameters
    ----------
    delay_difference_s
        The shortest delay of a frame minus the shortest delay of a position block, seconds. The frame's delay
        includes exposure and readout if its stamp is the start of the exposure. The estimate is corrected for it.
    """

    def __init__(self, delay_difference_s: float = 0.0) -> None:
        self.delay_difference_s = delay_difference_s
        self._frames = DelayMinima()
        self._positions = DelayMinima()

    def note_frame(self, received: float, stamp: float) -> None:
        """Note a frame's arrival. A frame that waited and is looked up again is noted once."""
        if received > self._frames.latest:
            self._frames.note(received, stamp)

    def note_frames(self, received: Sequence[float], stamps: Sequence[float]) -> None:
        """Note the arrivals of some frames, as `note_frame` does one by one."""
        ordered = sorted(set(received))
        if ordered[-1] <= self._frames.latest:  # they waited
            return
        if len(ordered) == 1:  # they came at once
            self._frames.note(received[0], stamps[0])
        elif ordered[0] > self._frames.latest and ordered == list(received):
            self._frames.note_all(received, stamps)
        else:
            for arrival, stamp in zip(received, stamps, strict=True):
                self.note_frame(arrival, stamp)

    def note_positions(self, received: float, stamp: float) -> None:
        """Note the arrival of a block whose newest sample has this stamp."""
        if received < self._positions.latest - _SET_BACK_S:  # this machine's own clock was set back
            self._frames.clear()
            self._positions.clear()
        self._positions.note(received, stamp)

    def forget_frames(self) -> None:
        """Forget the frames, because the detector's clock was set back."""
        self._frames.clear()

    def forget_positions(self) -> None:
        """Forget the position blocks, because the position source's clock was set."""
        self._positions.clear()

    def estimate(self) -> OffsetEstimate | None:
        """The offset, or None until both streams have sent for one second."""
        if not (self._frames.known and self._positions.known):
            return None
        frames, positions = self._frames.least(), self._positions.least()
        offset = frames.offset_s - positions.offset_s - self.delay_difference_s
        return OffsetEstimate(offset, float(np.hypot(frames.uncertainty_s, positions.uncertainty_s)))
