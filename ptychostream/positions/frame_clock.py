"""Passes of the detector's clock: stretches in which it only goes forward.

Some detectors count the time of a frame from the start of the acquisition. The next acquisition then repeats the times
of the one before, and a position must not be found by time alone.
"""

from __future__ import annotations

from collections.abc import Sequence

from ptychostream.frames.frames import Frame

SET_BACK_S = 1.0
"""A later frame whose time is this much earlier shows that the clock was set back."""
_PASSES = 64


class _Pass:
    """Frames from `first` to `last`, as (run, id); `time` is that of the last one."""

    __slots__ = ("first", "last", "number", "time")

    def __init__(self, number: int, key: tuple[int, int], time: float) -> None:
        self.number = number
        self.first = self.last = key
        self.time = time


class FrameClock:
    """Says in which pass of the detector's clock a frame was taken, whatever the order of arrival.

    Runs, and the ids in a run, rise with the true time. So a frame with a higher run or id and an earlier time was
    taken after the clock was set back.
    """

    def __init__(self) -> None:
        self._passes: list[_Pass] = []  # oldest first

    def pass_of(self, frame: Frame) -> int:
        """Number of the frame's pass, counted from 0."""
        key, time = (frame.run, frame.id), frame.time
        passes = self._passes
        if not passes:
            passes.append(_Pass(0, key, time))
            return 0
        newest = passes[-1]
        if key > newest.last:
            if time < newest.time - SET_BACK_S:
                passes.append(_Pass(newest.number + 1, key, time))
                del passes[:-_PASSES]
                return newest.number + 1
            newest.last, newest.time = key, time
            return newest.number
        for older, newer in zip(reversed(passes[:-1]), reversed(passes), strict=False):
            if key >= newer.first:
                return newer.number
            if key > older.last and time < older.time - SET_BACK_S:
                newer.first = key
                return newer.number
            if key > older.last:
                return older.number
        return passes[0].number

    def one_pass(self, run: int, ids: Sequence[int], times: Sequence[float]) -> int | None:
        """Number of the pass that frames of a run belong to, whose ids and times rise.

        None: they may belong to several, and each must be asked for.
        """
        if not self._passes:
            return None
        newest, first, last = self._passes[-1], (run, ids[0]), (run, ids[-1])
        if first > newest.last:
            if times[0] < newest.time - SET_BACK_S:
                return None
            newest.last, newest.time = last, times[-1]
            return newest.number
        known = last <= newest.last and (len(self._passes) == 1 or first >= newest.first)
        return newest.number if known else None
