"""Whether the scan that is refined is over: it was told, or its frames have stopped."""

from __future__ import annotations

QUIET_S = 5.0
"""Frames have stopped when none came for so long, and for `QUIET_INTERVALS` times their mean interval."""
QUIET_INTERVALS = 20.0


class ScanOver:
    """Used by the thread of the refinement, but for `told`, which any thread may call. Times are monotonic, s."""

    def __init__(self) -> None:
        self._ended = -1
        self._first_s = self._last_s = 0.0
        self._frames = 0

    def told(self, run: int) -> None:
        """A run has ended."""
        self._ended = max(self._ended, run)

    def begin(self) -> None:
        """Another run is refined from now on."""
        self._frames = 0

    def note(self, now_s: float) -> None:
        """A frame of it was taken."""
        self._first_s = self._first_s if self._frames else now_s
        self._last_s = now_s
        self._frames += 1

    def is_over(self, run: int, now_s: float) -> bool:
        """Whether this run, the one that is refined, is over."""
        if run <= self._ended:
            return True
        if not self._frames:
            return False
        interval_s = (self._last_s - self._first_s) / max(self._frames - 1, 1)
        return now_s - self._last_s > max(QUIET_S, QUIET_INTERVALS * interval_s)
