"""Where every frame is: waiting for its position, for its batch, for its inference, or gone and counted.

Passive: no thread, no clock, no lock. Whatever order its methods are called in, received = stitched +
pending + Σ dropped, where pending is what the containers hold.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from ptychostream.frame_ids import FrameIds
from ptychostream.frames import DropCause, Frame, PlacedFrame
from ptychostream.join import Join, Joined
from ptychostream.plugins.batcher import Batcher
from ptychostream.plugins.ledger import Ledger
from ptychostream.positions import PositionSource

_ENDED_SCANS_KEPT = 1000


class FrameFlow:
    """Join, batcher, the batch in flight and the ledger, kept in step.

    Parameters
    ----------
    positions
        Where positions come from.
    join_size
        Frames that may wait for one.
    batcher
        Gathers the frames that have one.
    """

    def __init__(self, positions: PositionSource, join_size: int, batcher: Batcher) -> None:
        self.ledger = Ledger()
        self.batcher = batcher
        self.in_flight: list[PlacedFrame] = []
        self.scan: str | None = None
        self.scan_active = False
        self._join_size = join_size
        self._join = Join(positions, join_size)
        self._closed = False
        self._ended: dict[str, None] = {}  # ordered: the oldest is forgotten first
        self._canvases: deque[int] = deque()  # the batcher's `entered` at which a new canvas begins
        self._ids = FrameIds()
        self._earlier_missed = 0
        self._earlier_disordered = 0

    @property
    def waiting_position(self) -> int:
        return self._join.waiting

    @property
    def pending(self) -> int:
        """Frames under way, counted where they are."""
        return self._join.waiting + self.batcher.waiting + len(self.in_flight)

    @property
    def holds(self) -> bool:
        """The conservation law."""
        return self.ledger.holds(self.pending)

    @property
    def missed(self) -> int:
        """Gaps in the detector's frame numbers, over all scans."""
        return self._earlier_missed + self._ids.missed

    @property
    def disordered(self) -> int:
        """Frames that came after one with a higher number."""
        return self._earlier_disordered + self._ids.disordered

    def submit(self, frame: Frame, now: float) -> None:
        """Take a frame with the detector's raw id, which is unwrapped here.

        A new scan id begins a scan. Frames of the scan before are late; those that come after `end_scan` and
        before another scan begins are not, for the word of the end may overtake the last frames.
        """
        self.ledger.received += 1
        if self._closed or frame.scan in self._ended:
            self.ledger.drop(DropCause.LATE)
            return
        if frame.scan != self.scan:
            self._begin_scan(frame.scan, now)
        if not frame.scan:
            self.scan_active = True
        unwrapped = self._ids.accept(frame.id, frame.time)
        if unwrapped is None:
            self.ledger.drop(DropCause.DUPLICATE)
            return
        frame.id = unwrapped
        self._take_in(self._join.add(frame), now)
        if not self.scan_active:
            self._drop_unplaced(now)

    def reject(self, cause: DropCause) -> None:
        """Count a frame that could not be read."""
        self.ledger.received += 1
        self.ledger.drop(cause)

    def poll(self, now: float) -> None:
        """The position source has changed: place what can be placed."""
        self._take_in(self._join.poll(), now)

    def set_positions(self, positions: PositionSource, now: float) -> None:
        """Change the source; frames that wait are looked up in the new one."""
        waiting = self._join.end_scan(self.scan or "")
        self._take_in(Joined(placed=waiting.placed), now)
        self._join = Join(positions, self._join_size)
        for frame, _ in waiting.dropped:
            self._take_in(self._join.add(frame), now)

    def start_scan(self, scan: str, now: float) -> None:
        """Begin a scan, unless it is the one that runs; one of that name that ended may come again."""
        if scan != self.scan or not self.scan_active:
            self._begin_scan(scan, now)

    def end_scan(self, scan: str, now: float) -> None:
        """No more positions of `scan` will come: drop what waits for one, let the rest go at once."""
        if scan == self.scan:
            self._drop_unplaced(now)
            self.batcher.flush()
            self.scan_active = False

    def close(self, now: float) -> None:
        """Flush, and take no more frames at all."""
        if self.scan is not None:
            self.end_scan(self.scan, now)
        self._closed = True

    def take(self, now: float) -> bool:
        """Put the batch that is due in flight, if one is; True when it begins a new canvas."""
        first, anew = self.batcher.left, False
        self.in_flight = self.batcher.take(now)
        while self.in_flight and self._canvases and self._canvases[0] <= first:
            self._canvases.popleft()
            anew = True
        return anew

    def land(self, stitched: int, dropped: Iterable[DropCause]) -> None:
        """The batch in flight is through: so many stitched, the others dropped."""
        self.in_flight = []
        self.ledger.stitched += stitched
        for cause in dropped:
            self.ledger.drop(cause)

    def restart_counters(self) -> None:
        """Count from zero; what is under way counts as received."""
        self.ledger.restart(self.pending)
        self._earlier_missed, self._earlier_disordered = -self._ids.missed, -self._ids.disordered

    def _begin_scan(self, scan: str, now: float) -> None:
        if self.scan is not None:
            self.end_scan(self.scan, now)
            self._forget(self.scan)
        self._ended.pop(scan, None)
        self.scan, self.scan_active = scan, True
        if not self._canvases or self._canvases[-1] < self.batcher.entered:
            self._canvases.append(self.batcher.entered)
        self._earlier_missed, self._earlier_disordered = self.missed, self.disordered
        self._ids = FrameIds()

    def _forget(self, scan: str) -> None:
        """Frames of `scan` are late from now on; a stream without names has no late frames."""
        if scan:
            self._ended[scan] = None
            if len(self._ended) > _ENDED_SCANS_KEPT:
                del self._ended[next(iter(self._ended))]

    def _drop_unplaced(self, now: float) -> None:
        assert self.scan is not None
        self._take_in(self._join.end_scan(self.scan), now)
        self._join.start_scan(self.scan)  # it is judged here, by `_ended`, who is late

    def _take_in(self, joined: Joined, now: float) -> None:
        for _, cause in joined.dropped:
            self.ledger.drop(cause)
        for placed in joined.placed:
            if self.batcher.add(placed, now) is not None:
                self.ledger.drop(DropCause.QUEUE_FULL)
