"""Frames meet their positions, in whatever order the two arrive.

Which position a frame gets depends on the frame alone, never on what else is waiting or on when it came.
Every frame that is added comes out exactly once, placed or dropped: in = placed + dropped + waiting.
"""

from __future__ import annotations

import heapq
from collections import Counter, OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field

from ptychostream.errors import DropCause
from ptychostream.frames.frames import Frame, PlacedFrame
from ptychostream.positions.positions import NeverPlaced, PositionSource

_ENDED_SCANS = 1024


@dataclass(slots=True)
class Joined:
    """What left the join: frames with their positions, and frames that never get one."""

    placed: list[PlacedFrame] = field(default_factory=list)
    dropped: list[tuple[Frame, DropCause]] = field(default_factory=list)


class Join:
    """Holds frames until their positions are known. No thread, no clock, no lock: the caller serialises.

    Parameters
    ----------
    source
        Where positions come from. It may be updated between calls.
    capacity
        Frames that may wait, of all scans together. When one more has to wait, the frame that has waited
        longest is dropped as NO_POSITION.

    Notes
    -----
    Frames of several scans may wait at once. Frames of a scan that has ended are dropped as LATE, until
    `start_scan` names that scan again; the last 1024 ended scans are remembered. The empty scan id, of
    streams that name no scan, is never held to have ended: its next frame may belong to the next scan.
    """

    def __init__(self, source: PositionSource, capacity: int) -> None:
        if capacity < 1:
            raise ValueError(f"capacity {capacity} must be at least 1")
        self.source = source
        self.capacity = capacity
        self._arrivals = 0
        self._waiting: OrderedDict[int, Frame] = OrderedDict()  # by order of arrival
        # (key, arrival) of those that the source cannot know yet, lowest key first; may name frames that have left.
        self._unknown: list[tuple[float, int]] = []
        self._asked: list[int] = []  # arrivals below known_below that were asked for in vain
        self._seen_version = source.version
        self._of_run: Counter[int] = Counter()  # waiting, by run
        self._ended: OrderedDict[str, None] = OrderedDict()

    @property
    def waiting(self) -> int:
        """Number of frames that wait for a position."""
        return len(self._waiting)

    def waiting_of(self, run: int) -> int:
        """Number of frames of that run that wait for a position."""
        return self._of_run[run]

    def add(self, frame: Frame) -> Joined:
        """Take a frame. Returns what leaves because of it: itself, placed or dropped, or the one it pushes out."""
        if frame.scan in self._ended:
            return Joined([], [(frame, DropCause.LATE)])
        try:
            place = self.source.lookup(frame)
        except NeverPlaced:
            return Joined([], [(frame, DropCause.NO_POSITION)])
        if place is not None:
            return Joined([PlacedFrame(frame, *place)], [])
        out = Joined()
        if len(self._waiting) >= self.capacity:
            out.dropped.append((self._take_out(next(iter(self._waiting))), DropCause.NO_POSITION))
        self._waiting[self._arrivals] = frame
        self._of_run[frame.run] += 1
        key = self.source.key(frame)
        if key < self.source.known_below:
            self._asked.append(self._arrivals)
        else:
            heapq.heappush(self._unknown, (key, self._arrivals))
        self._arrivals += 1
        self._forget_the_gone()
        return out

    def poll(self) -> Joined:
        """Ask again for those that wait, where the source has changed: positions may have come."""
        out = Joined()
        if not self._waiting or self.source.version == self._seen_version:
            return out
        self._seen_version = self.source.version
        candidates, self._asked = self._asked, []
        while self._unknown and self._unknown[0][0] < self.source.known_below:
            candidates.append(heapq.heappop(self._unknown)[1])
        for arrival in sorted(candidates):
            frame = self._waiting.get(arrival)
            if frame is not None and not self._settle(arrival, frame, out):
                self._asked.append(arrival)
        return out

    def start_scan(self, scan: str) -> None:
        """Frames of `scan` are welcome again, though a scan of that name has ended: a scan may be repeated."""
        self._ended.pop(scan, None)

    def end_scan(self, scan: str) -> Joined:
        """No more frames or positions will come for `scan`: place what can be placed, drop the rest."""
        out = self.give_up(lambda frame: frame.scan == scan)
        if scan:
            self._ended[scan] = None
            self._ended.move_to_end(scan)
            if len(self._ended) > _ENDED_SCANS:
                self._ended.popitem(last=False)
        return out

    def give_up(self, which: Callable[[Frame], bool]) -> Joined:
        """No more positions will come for these of the waiting frames: place what can be placed, drop the rest."""
        out = Joined()
        for arrival, frame in [item for item in self._waiting.items() if which(item[1])]:
            if not self._settle(arrival, frame, out):
                out.dropped.append((self._take_out(arrival), DropCause.NO_POSITION))
        return out

    def _take_out(self, arrival: int) -> Frame:
        frame = self._waiting.pop(arrival)
        self._of_run[frame.run] -= 1
        if not self._of_run[frame.run]:
            del self._of_run[frame.run]
        return frame

    def _settle(self, arrival: int, frame: Frame, out: Joined) -> bool:
        """Ask for a waiting frame; True when it has left."""
        try:
            place = self.source.lookup(frame)
        except NeverPlaced:
            out.dropped.append((frame, DropCause.NO_POSITION))
        else:
            if place is None:
                return False
            out.placed.append(PlacedFrame(frame, *place))
        self._take_out(arrival)
        return True

    def _forget_the_gone(self) -> None:
        """Keep the two indices within twice the frames that wait, however long no position comes."""
        if len(self._unknown) + len(self._asked) > 2 * len(self._waiting) + 64:
            self._unknown = [entry for entry in self._unknown if entry[1] in self._waiting]
            heapq.heapify(self._unknown)
            self._asked = [arrival for arrival in self._asked if arrival in self._waiting]
