"""Latencies of frames, and frames per second, in bounded memory."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

_SHORTEST_S = 1e-5
_PER_DECADE = 100
_BINS = 8 * _PER_DECADE  # 10 µs to 1000 s
_INTERVALS = 20


class LatencyHistograms:
    """Latencies of several kinds in logarithmic bins 2.3 % wide, so that a percentile of millions costs 6 kB.

    Parameters
    ----------
    kinds
        Number of kinds: the rows of the arrays.
    """

    def __init__(self, kinds: int) -> None:
        self._bins = np.zeros((kinds, _BINS), np.int64)

    def record(self, kinds: slice | Sequence[int], seconds: ArrayLike) -> None:
        """Add latencies [len(kinds), n], s; what lies outside 10 µs to 1000 s counts in the outermost bin."""
        times = np.maximum(np.asarray(seconds, np.float64), _SHORTEST_S)
        index = (np.log10(times / _SHORTEST_S) * _PER_DECADE).astype(np.int64)
        rows = np.arange(len(self._bins))[kinds][:, None]
        np.add.at(self._bins, (rows, np.minimum(index, _BINS - 1)), 1)

    def percentiles(self, *percent: float, kinds: Sequence[int] | slice = slice(None)) -> NDArray[np.float64]:
        """[len(kinds), len(percent)] percentiles in seconds, NaN where nothing was recorded."""
        cumulative = np.cumsum(self._bins[kinds], axis=1)
        found = np.full((len(cumulative), len(percent)), np.nan)
        for kind in np.flatnonzero(cumulative[:, -1]):
            ranks = np.ceil(np.asarray(percent) / 100 * cumulative[kind, -1]).clip(1)
            found[kind] = _SHORTEST_S * 10 ** ((np.searchsorted(cumulative[kind], ranks) + 0.5) / _PER_DECADE)
        return found

    def clear(self) -> None:
        self._bins[:] = 0


class RateMeter:
    """Events per second over the last `window_s` seconds, counted in intervals of a twentieth of that.

    Events are noted when they happen, so that reading the rate changes nothing, however often it is read.
    """

    def __init__(self, window_s: float = 2.0) -> None:
        self._interval_s = window_s / _INTERVALS
        self._counts: deque[tuple[int, int]] = deque(maxlen=_INTERVALS + 1)  # number of an interval, its events

    def note(self, events: int, now: float) -> None:
        """Count events that happened at `now`, seconds of a clock that never goes back."""
        interval = int(now / self._interval_s)
        if self._counts and self._counts[-1][0] == interval:
            events += self._counts.pop()[1]
        self._counts.append((interval, events))

    def rate(self, now: float) -> float:
        """Events per second in the window that ends at `now`."""
        first = int(now / self._interval_s) - _INTERVALS
        events = sum(count for interval, count in self._counts if interval >= first)
        return events / (now - first * self._interval_s)
