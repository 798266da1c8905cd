"""How long frames took, and how many a second, in bounded memory."""

from __future__ import annotations

from collections import deque

import numpy as np
from numpy.typing import ArrayLike

_SHORTEST_S = 1e-5
_PER_DECADE = 100
_BINS = 8 * _PER_DECADE  # 10 µs to 1000 s


class LatencyHistogram:
    """Latencies in logarithmic bins 2.3 % wide, so that a percentile of millions costs 6 kB."""

    def __init__(self) -> None:
        self._bins = np.zeros(_BINS, np.int64)

    def record(self, seconds: ArrayLike) -> None:
        """Add latencies; what lies outside 10 µs to 1000 s counts in the outermost bin."""
        times = np.maximum(np.asarray(seconds, np.float64), _SHORTEST_S)
        index = (np.log10(times / _SHORTEST_S) * _PER_DECADE).astype(np.int64)
        np.add.at(self._bins, np.minimum(index, _BINS - 1), 1)

    def percentiles(self, *percent: float) -> tuple[float, ...]:
        """Percentiles in seconds, NaN when nothing was recorded."""
        cumulative = np.cumsum(self._bins)
        if cumulative[-1] == 0:
            return tuple(float("nan") for _ in percent)
        ranks = np.ceil(np.asarray(percent) / 100 * cumulative[-1]).clip(1)
        index = np.searchsorted(cumulative, ranks)
        return tuple((_SHORTEST_S * 10 ** ((index + 0.5) / _PER_DECADE)).tolist())

    def clear(self) -> None:
        self._bins[:] = 0


class RateMeter:
    """Events per second over the last `window_s` seconds, from a running total."""

    def __init__(self, window_s: float = 2.0) -> None:
        self._window_s = window_s
        self._seen: deque[tuple[float, int]] = deque()

    def update(self, total: int, now: float) -> float:
        """The rate at `now`, given the total so far; a total that fell starts over."""
        if self._seen and total < self._seen[-1][1]:
            self._seen.clear()
        self._seen.append((now, total))
        while len(self._seen) > 2 and self._seen[1][0] <= now - self._window_s:
            self._seen.popleft()
        (start, first), elapsed = self._seen[0], now - self._seen[0][0]
        return (total - first) / elapsed if elapsed > 0 and start < now else 0.0
