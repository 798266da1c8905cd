"""Join frames with their positions. Frames and positions may arrive in any order.

The position of a frame depends on the frame only, not on other waiting frames and not on its time of arrival.
Every added frame leaves exactly once, placed or dropped: added = placed + dropped + waiting.
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
    """Frames that left the join: those with a position, and those that never get one."""

    placed: list[PlacedFrame] = field(default_factory=list)
    dropped: list[tuple[Frame, DropCause]] = field(default_factory=list)


class Join:
    """Holds frames until their positions are known. It has no lock: the caller serialises the calls.

    Parameters
    ----------
    source
        Gives the positions. It may be updated between calls.
    capacity
        The largest number of waiting frames, of all scans together. If one more has to wait, the frame that has
        waited longest is dropped as NO_POSITION.
    max_bytes
        Memory that the counts of the waiting frames may take; beyond, the same happens. One frame may wait whatever
        its size is.

    Notes
    -----
    Frames of several scans may wait at the same time. Frames of an ended scan are dropped as LATE until
    `start_scan` is called with that scan again; the last 1024 ended scans are remembered. The empty scan id of
    streams that name no scan never counts as ended, because its next frame may belong to the next scan.
    """

    def __init__(self, source: PositionSource, capacity: int, max_bytes: int = 1 << 40) -> None:
        if capacity < 1:
            raise ValueError(f"capacity {capacity} must be at least 1")
        self.source = source
        self.capacity = capacity
        self.max_bytes = max_bytes
        self.held_bytes = 0
        """Memory of the waiting frames' counts."""
        self._arrivals = 0
        self._waiting: OrderedDict[int, Frame] = OrderedDict()  # by order of arrival
        # (key, arrival) of frames that the source cannot know yet, lowest key first. Some of them may have left.
        self._unknown: list[tuple[float, int]] = []
        self._asked: list[int] = []  # arrivals of frames below known_below whose lookup gave no position
        self._seen_version = source.version
        self._known_version, self._known_below = -1, 0.0  # known_below as it was for that version
        self._of_run: Counter[int] = Counter()  # number of waiting frames by run
        self._ended: OrderedDict[str, None] = OrderedDict()

    @property
    def waiting(self) -> int:
        """The number of frames that wait for a position."""
        return len(self._waiting)

    def waiting_of(self, run: int) -> int:
        """The number of frames of that run that wait for a position."""
        return self._of_run[run]

    def add(self, frame: Frame) -> Joined:
        """Take a frame. Returns the frames that leave: the frame itself, or the one that makes room for it."""
        if frame.scan in self._ended:
            return Joined([], [(frame, DropCause.LATE)])
        version = self.source.version
        try:
            place = self.source.lookup(frame)
        except NeverPlaced:
            return Joined([], [(frame, DropCause.NO_POSITION)])
        # by this frame the source may know where frames are that came before
        out = Joined() if self.source.version == version else self.poll()
        if place is not None:
            out.placed.append(PlacedFrame(frame, *place))
            return out
        while self._is_full(frame):
            out.dropped.append((self._take_out(next(iter(self._waiting))), DropCause.NO_POSITION))
        self._waiting[self._arrivals] = frame
        self._of_run[frame.run] += 1
        self.held_bytes += frame.counts.nbytes
        key = self.source.key(frame)
        if self._known_version != version:
            # What else the lookups of a version change only lowers it: a frame is then asked for once too often.
            self._known_version, self._known_below = version, self.source.known_below
        if key < self._known_below:
            self._asked.append(self._arrivals)
        else:
            heapq.heappush(self._unknown, (key, self._arrivals))
        self._arrivals += 1
        self._forget_the_gone()
        return out

    def poll(self) -> Joined:
        """Look up the waiting frames again if the source has changed. Returns the frames that leave."""
        out = Joined()
        if not self._waiting or self.source.version == self._seen_version:
            return out
        self._seen_version = self.source.version
        candidates, self._asked = self._asked, []
        known_below = self.source.known_below
        while self._unknown and self._unknown[0][0] < known_below:
            candidates.append(heapq.heappop(self._unknown)[1])
        for arrival in sorted(candidates):
            frame = self._waiting.get(arrival)
            if frame is not None and not self._settle(arrival, frame, out):
                self._asked.append(arrival)
        return out

    def start_scan(self, scan: str) -> None:
        """Accept frames of `scan` again, because a scan with the id of an ended scan has started."""
        self._ended.pop(scan, None)

    def end_scan(self, scan: str) -> Joined:
        """End `scan`: its waiting frames are placed if their positions are known, else dropped."""
        out = self.give_up(lambda frame: frame.scan == scan)
        if scan:
            self._ended[scan] = None
            self._ended.move_to_end(scan)
            if len(self._ended) > _ENDED_SCANS:
                self._ended.popitem(last=False)
        return out

    def give_up(self, which: Callable[[Frame], bool]) -> Joined:
        """Place the waiting frames that `which` selects if their positions are known, else drop them."""
        out = Joined()
        for arrival, frame in [item for item in self._waiting.items() if which(item[1])]:
            if not self._settle(arrival, frame, out):
                out.dropped.append((self._take_out(arrival), DropCause.NO_POSITION))
        return out

    def _is_full(self, frame: Frame) -> bool:
        beyond = self.held_bytes + frame.counts.nbytes > self.max_bytes
        return len(self._waiting) >= self.capacity or (beyond and bool(self._waiting))

    def _take_out(self, arrival: int) -> Frame:
        frame = self._waiting.pop(arrival)
        self.held_bytes -= frame.counts.nbytes
        self._of_run[frame.run] -= 1
        if not self._of_run[frame.run]:
            del self._of_run[frame.run]
        return frame

    def _settle(self, arrival: int, frame: Frame, out: Joined) -> bool:
        """Look up a waiting frame. Returns whether it has left."""
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
        """Remove frames that have left from the two indices, so that these stay below twice the waiting frames."""
        if len(self._unknown) + len(self._asked) > 2 * len(self._waiting) + 64:
            self._unknown = [entry for entry in self._unknown if entry[1] in self._waiting]
            heapq.heapify(self._unknown)
            self._asked = [arrival for arrival in self._asked if arrival in self._waiting]
