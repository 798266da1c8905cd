"""Join frames with their positions. Frames and positions may arrive in any order.

The position of a frame depends on the frame only, not on other waiting frames and not on its time of arrival.
Every added frame leaves exactly once, placed or dropped: added = placed + dropped + waiting.
"""

from __future__ import annotations

import heapq
from collections import Counter, OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from ptychostream.errors import DropCause
from ptychostream.frames.frames import Frame, PlacedFrame
from ptychostream.positions.positions import PositionSource, lookup_all

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
        return self._take((frame,), Joined())

    def add_all(self, frames: Sequence[Frame]) -> Joined:
        """Take frames, as `add` does one by one. Many at once cost a fraction of that."""
        out = Joined()
        if self._ended and any(frame.scan in self._ended for frame in frames):
            out.dropped += [(frame, DropCause.LATE) for frame in frames if frame.scan in self._ended]
            frames = [frame for frame in frames if frame.scan not in self._ended]
        return self._take(frames, out) if frames else out

    def _take(self, frames: Sequence[Frame], out: Joined) -> Joined:
        version, waiting = self.source.version, []
        for frame, place in zip(frames, lookup_all(self.source, frames), strict=True):
            if isinstance(place, tuple):
                out.placed.append(PlacedFrame(frame, *place))
            elif place is None:
                waiting.append(frame)
            else:
                out.dropped.append((frame, DropCause.NO_POSITION))
        if waiting:
            self._wait(waiting, version, out)
        if self.source.version != version:  # by these frames the source may know where frames are that came before
            polled = self.poll()
            out.placed += polled.placed
            out.dropped += polled.dropped
        return out

    def _wait(self, frames: Sequence[Frame], version: int, out: Joined) -> None:
        """Keep frames whose positions are not known at that version of the source."""
        if self._known_version != version:
            # What else the lookups of a version change only lowers it: a frame is then asked for once too often.
            self._known_version, self._known_below = version, self.source.known_below
        waiting, key_of, known_below = self._waiting, self.source.key, self._known_below
        self._of_run.update([frame.run for frame in frames])
        for arrival, frame in enumerate(frames, self._arrivals):
            while self._is_full(frame):
                out.dropped.append((self._take_out(next(iter(waiting))), DropCause.NO_POSITION))
            waiting[arrival] = frame
            self.held_bytes += frame.counts.nbytes
            key = key_of(frame)
            if key < known_below:
                self._asked.append(arrival)
            else:
                heapq.heappush(self._unknown, (key, arrival))
        self._arrivals += len(frames)
        self._forget_the_gone()

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
        arrivals = [arrival for arrival in sorted(candidates) if arrival in self._waiting]
        self._asked += self._settle(arrivals, out)
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
        for arrival in self._settle([arrival for arrival, frame in self._waiting.items() if which(frame)], out):
            out.dropped.append((self._take_out(arrival), DropCause.NO_POSITION))
        return out

    def _is_full(self, frame: Frame) -> bool:
        beyond = self.held_bytes + frame.counts.nbytes > self.max_bytes
        return len(self._waiting) >= self.capacity or (beyond and bool(self._waiting))

    def _take_out(self, arrival: int) -> Frame:
        frame = self._waiting.pop(arrival)
        self._left((frame,))
        return frame

    def _left(self, frames: Sequence[Frame]) -> None:
        """These frames wait no more."""
        self.held_bytes -= sum(frame.counts.nbytes for frame in frames)
        for run, number in Counter(frame.run for frame in frames).items():
            self._of_run[run] -= number
            if not self._of_run[run]:
                del self._of_run[run]

    def _settle(self, arrivals: Sequence[int], out: Joined) -> list[int]:
        """Look up waiting frames. Returns those that go on waiting."""
        if not arrivals:
            return []
        waits: list[int] = []
        gone: list[Frame] = []
        frames = [self._waiting[arrival] for arrival in arrivals]
        for arrival, frame, place in zip(arrivals, frames, lookup_all(self.source, frames), strict=True):
            if place is None:
                waits.append(arrival)
                continue
            if isinstance(place, tuple):
                out.placed.append(PlacedFrame(frame, *place))
            else:
                out.dropped.append((frame, DropCause.NO_POSITION))
            del self._waiting[arrival]
            gone.append(frame)
        self._left(gone)
        return waits

    def _forget_the_gone(self) -> None:
        """Remove frames that have left from the two indices, so that these stay below twice the waiting frames."""
        if len(self._unknown) + len(self._asked) > 2 * len(self._waiting) + 64:
            self._unknown = [entry for entry in self._unknown if entry[1] in self._waiting]
            heapq.heapify(self._unknown)
            self._asked = [arrival for arrival in self._asked if arrival in self._waiting]
