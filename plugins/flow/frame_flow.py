"""Holds every frame that is under way: it waits for its position, for its batch or for its inference.

Passive: no thread, no clock, no lock. Whatever order its methods are called in, received = stitched +
pending + Σ dropped, where pending is what the containers hold.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from contextlib import suppress

from ptychostream.errors import DropCause
from ptychostream.frames.frames import Frame, PlacedFrame
from ptychostream.frames.scan_boundary import Begin, Boundary
from ptychostream.plugins.flow.batcher import Batcher
from ptychostream.plugins.flow.decimator import DecimationSettings, Decimator
from ptychostream.plugins.flow.ledger import Ledger
from ptychostream.plugins.flow.scan_boundary import BoundarySettings
from ptychostream.plugins.flow.scan_runs import FlowRun, FlowRuns
from ptychostream.positions.join import Join, Joined
from ptychostream.positions.positions import NeverPlaced, PositionSource


class FrameFlow:
    """The join, the batcher, the batch in flight and the ledger, changed together.

    Parameters
    ----------
    positions
        The position source.
    join_size
        Number of frames that may wait for a position.
    batcher
        Gathers the frames that have a position.
    scans
        What tells scans apart, and what becomes of late frames.

    Attributes
    ----------
    position_wait_s
        Seconds that frames wait, after the end of their scan, for positions that are matched by time.
    late_taken
        Number of frames taken for the canvas of a run after its end.
    equal_times
        Number of frames with the time stamp of the frame before, although their ids differ.
    """

    def __init__(
        self, positions: PositionSource, join_size: int, batcher: Batcher, scans: BoundarySettings | None = None
    ) -> None:
        scans = scans or BoundarySettings()
        self.ledger = Ledger()
        self.batcher = batcher
        self.decimator = Decimator(DecimationSettings())
        self.in_flight: list[PlacedFrame] = []
        self.runs = FlowRuns(scans.keep, scans.keep_bytes)
        self.late_taken = self.equal_times = 0
        self._boundary = Boundary[FlowRun](scans.rules)
        self._join_size = join_size
        self._join = Join(positions, join_size)
        self.position_wait_s = 5.0
        self._overdue: dict[int, float] = {}  # runs that are over, and until when their frames wait for positions
        self._closed = False
        self._joining: list[Frame] = []  # taken for the running scan, and about to be joined with their positions
        self._last_entered = 0  # the run of the frame that entered the batcher last
        self._missed_before = 0  # what was counted when the counters were set to zero
        self._disordered_before = 0

    @property
    def scan(self) -> str | None:
        """Id of the current run's scan; None before any."""
        return self.runs.current.scan if self.runs.current else None

    @property
    def scan_active(self) -> bool:
        """Whether the current run goes on."""
        return self.runs.current is not None and self.runs.current.active

    def limit_bytes(self, each: int) -> None:
        """Memory that the frames may take that wait for a position, and those that wait for the engine."""
        self._join.max_bytes = self.batcher.max_bytes = each

    @property
    def waiting_bytes(self) -> int:
        """Memory of the frames that wait, in both places."""
        return self._join.held_bytes + self.batcher.held_bytes

    @property
    def waiting_position(self) -> int:
        return self._join.waiting

    def waits_for_position(self, run: int) -> bool:
        """Whether frames of that run wait for a position."""
        return self._join.waiting_of(run) > 0

    @property
    def pending(self) -> int:
        """Frames under way, counted where they are."""
        return self._join.waiting + self.batcher.waiting + len(self.in_flight)

    @property
    def holds(self) -> bool:
        """Whether the conservation law holds."""
        return self.ledger.holds(self.pending)

    @property
    def missed(self) -> int:
        """Gaps in the detector's frame numbers, over all scans."""
        return self.runs.missed - self._missed_before

    @property
    def disordered(self) -> int:
        """Frames that came after one with a higher number."""
        return self.runs.disordered - self._disordered_before

    def submit(self, frame: Frame, now: float) -> bool:
        """Take a frame with the detector's raw id, which is unwrapped here.

        It goes to the run that the boundary says it belongs to, or begins one. Frames of a run that is over are late:
        stitched to the canvas they belong to, or dropped.

        Returns
        -------
        bool
            Whether the frame's end attribute has ended its run.
        """
        ends = self._sort(frame, now)
        self._join_all(now)
        return ends

    def _sort(self, frame: Frame, now: float) -> bool:
        """As `submit`; a frame of the running scan is left in `_joining`."""
        frame.entered = now
        self.ledger.received += 1
        run = None if self._closed else self._run_of(frame, now)
        if run is None:
            self.ledger.drop(DropCause.LATE)
            return False
        run.ledger.received += 1
        frame.run, frame.scan = run.number, run.scan
        if not self._boundary.takes(run, self.runs, now):
            run.ids.refuse(frame.id)
            self._drop(run, DropCause.LATE)
            return False
        unwrapped = run.ids.accept(frame.id, frame.time)
        if unwrapped is None:
            self._drop(run, DropCause.DUPLICATE)
            return False
        frame.id, frame.first = unwrapped, run.ids.first
        ends = self._boundary.ends(run, frame.time, frame.flag)
        equal = run.equal_times
        run.note(frame.time, now, stamped=frame.fault is None and frame.time != frame.received)
        self.equal_times += run.equal_times - equal
        if frame.fault is not None:
            self._drop(run, frame.fault)
        elif run.active:
            self._joining.append(frame)
        else:
            self.late_taken += 1
            self._place_late(run, frame, now)
        if ends:
            self.end_scan(run.scan, now)
        return ends

    def _join_all(self, now: float) -> None:
        """Join the frames that have been taken with their positions."""
        if self._joining:
            frames, self._joining = self._joining, []
            self._take_in(self._join.add_all(frames), now)

    def submit_up_to_end(self, frames: Iterator[Frame], arrived: float, now: float) -> tuple[int, str, bool]:
        """Take frames up to one whose end attribute ends its scan.

        Returns
        -------
        taken, scan, ended
            The number of frames that were taken, the scan of the last one, and whether it has ended.
        """
        taken, scan = 0, ""
        for frame in frames:
            frame.received = frame.received or arrived
            taken += 1
            if self._sort(frame, now):
                return taken, frame.scan, True
            scan = frame.scan
        self._join_all(now)
        return taken, scan, False

    def reject(self, cause: DropCause, raw_id: int | None = None) -> None:
        """Count a frame that could not be read; it is counted for the running scan, if one runs.

        `raw_id` is its id, if that could be read: a frame that came is not missed.
        """
        self.ledger.received += 1
        if self.runs.current is not None and self.runs.current.active:
            self.runs.current.ledger.received += 1
            if raw_id is not None:
                self.runs.current.ids.refuse(raw_id)
            self._drop(self.runs.current, cause)
        else:
            self.ledger.drop(cause)

    def poll(self, now: float) -> None:
        """The position source has changed: place what can be placed."""
        self._take_in(self._join.poll(), now)

    def set_positions(self, positions: PositionSource, now: float) -> None:
        """Change the source; frames that wait are looked up in the new one."""
        waiting = self._join.give_up(lambda _: True)
        self._take_in(Joined(placed=waiting.placed), now)
        self._join = Join(positions, self._join_size, self._join.max_bytes)
        for frame, cause in waiting.dropped:
            if frame.run in self._overdue and not positions.outlasts_scan:
                self._drop(self.runs.get(frame.run), cause)
            else:
                self._take_in(self._join.add(frame), now)

    def start_scan(self, scan: str, now: float, anew: bool = False, at: float | None = None) -> None:
        """Begin a run of `scan`, as the beamline says at `at`, s since the POSIX epoch.

        Nothing happens where one of that id goes on, unless it is to begin `anew`. A run that has no frame yet, or
        that frames began before the beamline said that a scan runs, takes the id instead.
        """
        current = self.runs.current
        unnamed = current is not None and current.active and (current.provisional or not current.ledger.received)
        self._boundary.told = True
        if current is not None and unnamed and anew:
            if at is not None and not current.ledger.received:
                current.told_from = at
            self._rename(current, scan, now)
        elif anew or scan != self.scan or not self.scan_active:
            self._told_end(at)
            run = self._begin_run(scan, now)
            run.told_from = -math.inf if at is None else at

    def end_scan(self, scan: str, now: float, at: float | None = None) -> None:
        """End the scan, as the beamline says at `at`, s since the POSIX epoch: frames that have a position leave at
        once.

        Frames without a position are dropped, or wait `position_wait_s` where positions are matched by time.
        """
        self._boundary.told = True
        self._join_all(now)
        if scan == self.scan:
            self._told_end(at)
            self._end_waiting(now)
            self.batcher.flush()
            self.runs.end(now)

    def tick(self, now: float) -> bool:
        """Time has passed: True when a pause in the stream has ended the scan."""
        for run in [run for run, due in self._overdue.items() if due <= now or not self._join.waiting_of(run)]:
            self._give_up(run, now)
        current = self.runs.current
        if current is None or not self._boundary.is_over(current, now):
            return False
        self.end_scan(current.scan, now)
        return True

    def close(self, now: float) -> None:
        """Let every frame leave, and accept no more frames."""
        if self.scan is not None:
            self.end_scan(self.scan, now)
        self._take_in(self._join.give_up(lambda _: True), now)
        self.batcher.flush()
        self._closed = True

    def take(self, now: float) -> None:
        """Put the batch that is due in flight, if there is one. All frames of a batch are of one run."""
        self.in_flight = self.batcher.take(now)

    def land(self, stitched: int, dropped: Iterable[DropCause]) -> None:
        """Count the batch in flight: `stitched` of its frames are on the canvas, the others were dropped."""
        if not self.in_flight:
            return
        run, self.in_flight = self.runs.get(self.in_flight[0].frame.run), []
        if stitched:
            self.runs.changed(run)
        self.ledger.stitched += stitched
        run.ledger.stitched += stitched
        for cause in dropped:
            self._drop(run, cause)

    def take_back(self, run: int) -> None:
        """Count a stitched frame of that run as a duplicate: another consumer had it before."""
        for ledger in (self.ledger, self.runs.get(run).ledger):
            ledger.stitched -= 1
            ledger.drop(DropCause.DUPLICATE)

    def restart_counters(self) -> None:
        """Count from zero; what is under way counts as received. The runs' own accounting goes on."""
        self.ledger.restart(self.pending)
        self._missed_before, self._disordered_before = self.runs.missed, self.runs.disordered
        self.late_taken = self.equal_times = 0

    def _run_of(self, frame: Frame, now: float) -> FlowRun | None:
        if frame.received:
            self._boundary.arrives(frame.time, frame.received)
        chosen = self._boundary.choose(frame.scan, frame.time, self.runs, now, frame.flag)
        if isinstance(chosen, Begin):
            return self._begin_run(chosen.scan, now, self._boundary.waits_to_be_told, frame.time)
        if chosen is not None and chosen is self.runs.current and not chosen.active and self._boundary.reopens(chosen):
            self.runs.reopen()
            self._overdue.pop(chosen.number, None)
        return chosen

    def _told_end(self, at: float | None) -> None:
        """No frame that was taken after `at` belongs to the run that goes on, if one does."""
        if at is not None and self.runs.current is not None and self.runs.current.active:
            self.runs.current.told_until = at

    def _begin_run(self, scan: str, now: float, provisional: bool = False, time: float | None = None) -> FlowRun:
        self._join_all(now)
        if self.scan is not None:
            self._end_waiting(now)
            self.batcher.flush()
        return self.runs.begin(scan, now, provisional, time)

    def _rename(self, run: FlowRun, scan: str, now: float) -> None:
        """Give the current run another scan id; its frames that wait for a position keep waiting."""
        waiting = self._join.give_up(lambda frame: frame.run == run.number)
        run.scan, run.provisional = scan, False
        self._take_in(Joined(placed=waiting.placed), now)
        for frame, _ in waiting.dropped:
            frame.scan = scan
            self._take_in(self._join.add(frame), now)

    def _place_late(self, run: FlowRun, frame: Frame, now: float) -> None:
        """Take a frame of a run that is over."""
        source = self._join.source
        if source.outlasts_scan:
            self._take_in(self._join.add(frame), now)
            if self._join.waiting_of(run.number):
                self._overdue.setdefault(run.number, now + self.position_wait_s)
            return
        place = None
        if run is self.runs.current:  # by now the source knows another run's positions
            with suppress(NeverPlaced):
                place = source.lookup(frame)
        if place is None:
            self._drop(run, DropCause.NO_POSITION)
        else:
            self._take_in(Joined(placed=[PlacedFrame(frame, *place)]), now)

    def _end_waiting(self, now: float) -> None:
        """Drop the frames of the ended run that wait for a position, at once or after `position_wait_s`."""
        assert self.runs.current is not None
        run = self.runs.current.number
        if self._join.source.outlasts_scan and self._join.waiting_of(run):
            self._overdue.setdefault(run, now + self.position_wait_s)
        else:
            self._give_up(run, now)

    def _give_up(self, run: int, now: float) -> None:
        self._overdue.pop(run, None)
        if self._join.waiting_of(run):
            self._take_in(self._join.give_up(lambda frame: frame.run == run), now)

    def _take_in(self, joined: Joined, now: float) -> None:
        for frame, cause in joined.dropped:
            self._drop(self.runs.get(frame.run), cause)
        for placed in joined.placed:
            if self.decimator.on and not self.decimator.keep(placed, self.batcher.use, now):
                self._drop(self.runs.get(placed.frame.run), DropCause.DECIMATED)
                continue
            if placed.frame.run != self._last_entered:
                self.batcher.flush()  # a batch is of one run, though a scan come twice under one id
            gone = self.batcher.add(placed, now)
            if not gone or gone[-1] is not placed:
                self._last_entered = placed.frame.run
            for one in gone:
                self._drop(self.runs.get(one.frame.run), DropCause.QUEUE_FULL)

    def _drop(self, run: FlowRun, cause: DropCause) -> None:
        self.ledger.drop(cause)
        run.ledger.drop(cause)
