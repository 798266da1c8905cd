"""How far two clocks are apart, from what is heard of each: the time stamps of a stream and when they arrive.

arrival - stamp = delay - error of the sender's clock. A delay is never shorter than the way itself, so the least
difference of many is the clock's error and the shortest delay alone, without queues and scheduling: the minimum
filter of NTP (Mills, RFC 5905, section 10). Of two streams that arrive at one process the difference of the two
minima is the offset between the two clocks, and the difference of the two shortest delays with it: one-way
messages cannot tell these two apart. So what is known of the delays (exposure and readout of the detector,
buffering of the position source) has to be given.
"""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

import numpy as np

_BUCKET_S = 0.25
_BUCKETS = 120
_LEAST_BUCKETS = 4
_LEAST_NOTES = 8
_SET_BACK_S = 1.0


class OffsetEstimate(NamedTuple):
    """A clock offset and how well the minima agree, both in seconds; what they share of the delays is not in it."""

    offset_s: float
    uncertainty_s: float


class LeastDelay:
    """The least of arrival - stamp, over the last half minute of arrivals: an old minimum must not outlive a drift."""

    def __init__(self) -> None:
        self._buckets: deque[tuple[int, float]] = deque(maxlen=_BUCKETS)  # number, least in it
        self.clear()

    def clear(self) -> None:
        self._buckets.clear()
        self._notes = 0
        self.latest = 0.0
        """Arrival of the last message noted."""

    def note(self, arrival: float, stamp: float) -> None:
        """A message with this stamp has arrived; both in seconds, each by its own clock."""
        number, difference = int(arrival // _BUCKET_S), arrival - stamp
        self._notes += 1
        self.latest = arrival
        if self._buckets and self._buckets[-1][0] == number:
            if difference < self._buckets[-1][1]:
                self._buckets[-1] = (number, difference)
            return
        self._buckets.append((number, difference))
        while self._buckets[0][0] <= number - _BUCKETS:
            self._buckets.popleft()

    @property
    def known(self) -> bool:
        """Whether there is enough to tell the least from a chance one."""
        return len(self._buckets) >= _LEAST_BUCKETS and self._notes >= _LEAST_NOTES

    def least(self) -> OffsetEstimate:
        """The minimum, and how far above it half of the buckets' own minima lie."""
        minima = np.array([least for _, least in list(self._buckets)])  # another thread may note meanwhile
        return OffsetEstimate(float(minima.min()), float(np.median(minima) - minima.min()))


class ClockOffset:
    """Offset of the position source's clock from the detector's: position clock - detector clock.

    Parameters
    ----------
    delay_difference_s
        The shortest delay of a frame (exposure and readout included, where its stamp is the start of the exposure),
        less the shortest delay of a position block; the estimate is free of it.
    """

    def __init__(self, delay_difference_s: float = 0.0) -> None:
        self.delay_difference_s = delay_difference_s
        self._frames = LeastDelay()
        self._positions = LeastDelay()

    def note_frame(self, received: float, stamp: float) -> None:
        """A frame came; one that is asked for again, having waited, is not noted again."""
        if received > self._frames.latest:
            self._frames.note(received, stamp)

    def note_positions(self, received: float, stamp: float) -> None:
        """A block came, its newest sample stamped so."""
        if received < self._positions.latest - _SET_BACK_S:  # this machine's own clock was set back
            self._frames.clear()
            self._positions.clear()
        self._positions.note(received, stamp)

    def forget_positions(self) -> None:
        """The position source's clock was set anew."""
        self._positions.clear()

    def estimate(self) -> OffsetEstimate | None:
        """None until both streams have been heard for a second."""
        if not (self._frames.known and self._positions.known):
            return None
        frames, positions = self._frames.least(), self._positions.least()
        offset = frames.offset_s - positions.offset_s - self.delay_difference_s
        return OffsetEstimate(offset, float(np.hypot(frames.uncertainty_s, positions.uncertainty_s)))
