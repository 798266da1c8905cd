"""The runs of scans in one stream: the one that goes on, and those before it that still take frames.

A run is one pass over a sample, from its beginning to its end; a scan that is aborted and restarted under the same
id is two runs. Passive: no thread, no clock, no lock.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Generic, NamedTuple, TypeVar

from ptychostream.frames.frame_ids import FrameIds

_FORGOTTEN_NAMES = 1000


@dataclass(eq=False)
class ScanRun:
    """One run of a scan.

    Attributes
    ----------
    number
        Counts the runs from 1.
    scan
        Scan id; the empty string where the stream names none.
    began, ended
        When it began and ended, on the caller's monotonic clock, s; `ended` is None while the run goes on.
    provisional
        A frame began it before the beamline had said whether a scan runs.
    first_time, last_time
        Earliest and latest acquisition time of its frames, s since the POSIX epoch; None before any.
    over_at
        No frame that was acquired later belongs to it, s since the POSIX epoch; infinite while it goes on.
    arrived
        When its latest frame came, on the clock of `began`.
    flag
        Whether the end attribute of its latest frame is up; None before any frame.
    marked
        Whether its end attribute has ended it.
    told_from, told_until
        When the beamline said that it begins and ends, s since the POSIX epoch on this machine's clock; infinite where
        nothing was said.
    late
        Frames that came after its end.
    equal_times
        Frames whose time is that of the frame before, although their ids differ.
    ids
        The ids of its frames.
    """

    number: int
    scan: str
    began: float
    provisional: bool = False
    ended: float | None = None
    first_time: float | None = None
    last_time: float | None = None
    over_at: float = math.inf
    arrived: float = 0.0
    flag: bool | None = None
    marked: bool = False
    told_from: float = -math.inf
    told_until: float = math.inf
    late: int = 0
    equal_times: int = 0
    ids: FrameIds = field(default_factory=FrameIds)
    _time_before: float | None = None

    @property
    def active(self) -> bool:
        return self.ended is None

    def note(self, time: float, now: float, *, stamped: bool = True) -> None:
        """Count in a frame that was acquired at `time` and came at `now`; `stamped`: the time is its own."""
        self.arrived = now
        self.late += not self.active
        if stamped:
            self.equal_times += time == self._time_before
            self._time_before = time
        if self.first_time is None or self.last_time is None:
            self.first_time = self.last_time = time
        elif time > self.last_time:
            self.last_time = time
        elif time < self.first_time:
            self.first_time = time

    def distance_s(self, time: float) -> float:
        """Seconds between `time` and the frames of this run; 0 among them, infinite where there are none."""
        if self.first_time is None or self.last_time is None:
            return math.inf
        return max(self.first_time - time, time - self.last_time, 0.0)


class Forgotten(NamedTuple):
    """A run that is not kept any more: the latest time of its frames, and whether its end attribute ended it."""

    time: float
    marked: bool


R = TypeVar("R", bound=ScanRun)


class ScanRuns(Generic[R]):
    """The current run, and the finished ones that are kept.

    Attributes
    ----------
    current
        The run that began last, whether it goes on or not; None where it was forgotten, or before any.
    """

    def __init__(self) -> None:
        self.current: R | None = None
        self._finished: dict[int, R] = {}  # oldest first
        self._begun = 0
        self._forgotten: dict[str, Forgotten] = {}  # by scan id, the oldest id first

    @property
    def next_number(self) -> int:
        """The number of the run that begins next."""
        return self._begun + 1

    @property
    def finished(self) -> list[R]:
        """The kept runs before the current one, newest first."""
        return list(reversed(self._finished.values()))

    @property
    def oldest_first(self) -> list[R]:
        """Every run that is kept."""
        return [*self._finished.values(), *([self.current] if self.current is not None else [])]

    def get(self, number: int) -> R:
        """The run of that number, which must be kept."""
        if self.current is not None and self.current.number == number:
            return self.current
        return self._finished[number]

    def latest(self, scan: str) -> R | None:
        """The newest run of that scan id which is kept."""
        return next((run for run in reversed(self.oldest_first) if run.scan == scan), None)

    def forgotten(self, scan: str) -> Forgotten | None:
        """The newest run of that scan id which is not kept any more; None: there was none."""
        return self._forgotten.get(scan)

    def add(self, run: R, now: float, time: float | None = None) -> None:
        """Make `run` the current one, begun by a frame that was acquired at `time`, if by any; the one before ends."""
        self.end(now, None if time is None else math.nextafter(time, -math.inf))
        if self.current is not None:
            self._finished[self.current.number] = self.current
        self._begun += 1
        self.current = run

    def end(self, now: float, over_at: float | None = None) -> bool:
        """End the current run; False where none goes on. Without `over_at`, its latest frame is its last."""
        run = self.current
        if run is None or not run.active:
            return False
        last = run.last_time
        run.ended = now
        run.over_at = max((time for time in (over_at, last) if time is not None), default=math.inf)
        return True

    def reopen(self) -> None:
        """The current run goes on after all."""
        if self.current is not None:
            self.current.ended, self.current.over_at = None, math.inf

    def forget(self, run: R) -> None:
        """Keep this run no longer; a run of its scan id is remembered by its latest time."""
        if run is self.current:
            self.current = None
        else:
            del self._finished[run.number]
        if run.last_time is not None:
            self._forgotten.pop(run.scan, None)
            self._forgotten[run.scan] = Forgotten(run.last_time, run.marked)
            if len(self._forgotten) > _FORGOTTEN_NAMES:
                del self._forgotten[next(iter(self._forgotten))]
