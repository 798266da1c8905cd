"""The detector's clock, tied to this machine's by the frames that came soonest after they were taken."""

from __future__ import annotations

import math

_SPAN_S = 60.0


class LeastDelay:
    """The least delay between a frame's own time and its arrival in the last one to two minutes.

    A stream is never faster than its fastest frame. So this delay is the sum of the difference between the two clocks
    and the shortest way of a frame, which is milliseconds: a frame's own time plus this delay is when it was taken, on
    this machine's clock, even if the detector's clock is wrong by years. Passive: no clock.
    """

    def __init__(self) -> None:
        self._now = self._before = math.inf
        self._since = -math.inf

    def note(self, time: float, arrived: float) -> None:
        """Note a frame that was taken at `time`, by its own clock, and came at `arrived`, both in POSIX seconds."""
        if not 0 <= arrived - self._since < _SPAN_S:
            self._before = self._now if self._since <= arrived < self._since + 2 * _SPAN_S else math.inf
            self._now, self._since = math.inf, arrived
        if arrived - time < self._now:
            self._now = arrived - time

    def taken(self, time: float) -> float | None:
        """When a frame of that time was taken, on this machine's clock; None before any frame was noted."""
        least = min(self._now, self._before)
        return time + least if math.isfinite(least) else None
