"""How long this process got no processor: a machine that stands still must not use up a test's time limit.

A thread wakes ten times a second. Where it wakes more than a second late, the machine (or whoever shares it) was away,
and so was everything that a test waits for.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

BEAT_S = 0.1
LATE_S = 1.0


class Standstill:
    """Adds up the time by which a thread that asks for `BEAT_S` wakes too late, where that is over `LATE_S`."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.seen: list[str] = []
        self._clock = clock
        self._noted_s = 0.0
        self._woken_s: float | None = None

    @property
    def lost_s(self) -> float:
        """Seconds until now, those that the thread has not woken from included. 0 where nothing watches."""
        return self._noted_s + self._late_s()

    def watch(self) -> None:
        """Begin. Once for each process."""
        if self._woken_s is None:
            self.wake()
            threading.Thread(target=self._run, name="standstill", daemon=True).start()

    def wake(self) -> None:
        """Note that the thread wakes now, and by how much that is late."""
        late_s = self._late_s()
        self._woken_s = self._clock()
        if late_s:
            self._noted_s += late_s
            self.seen.append(f"{late_s:.1f} s until {time.strftime('%H:%M:%S')}")

    def _late_s(self) -> float:
        late_s = self._clock() - self._woken_s - BEAT_S if self._woken_s is not None else 0.0
        return late_s if late_s > LATE_S else 0.0

    def _run(self) -> None:
        while True:
            time.sleep(BEAT_S)
            self.wake()


standstill = Standstill()


class Deadline:
    """A time limit that counts only the time in which the process could run.

    Parameters
    ----------
    timeout_s
        Seconds from now.
    source
        What says how much time was lost.
    clock
        Seconds.
    """

    def __init__(
        self, timeout_s: float, source: Standstill = standstill, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._source, self._clock = source, clock
        self._end_s = clock() + timeout_s - source.lost_s

    @property
    def passed(self) -> bool:
        """Whether it is over."""
        return self._clock() > self._end_s + self._source.lost_s
