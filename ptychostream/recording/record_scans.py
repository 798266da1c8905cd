"""Sorts frames into scans, and writes each scan to a file. No thread of its own."""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ptychostream.errors import DropCause, FrameError
from ptychostream.frames.frames import Frame
from ptychostream.frames.intake import Intake
from ptychostream.frames.scan_boundary import Begin, Boundary, BoundaryRules
from ptychostream.frames.scan_runs import ScanRun, ScanRuns
from ptychostream.positions.join import Join
from ptychostream.positions.positions import PositionSource
from ptychostream.pva.reading import RawPayload
from ptychostream.scans.file_names import FileNames
from ptychostream.scans.scan_recording import RecordedFrame, ScanRecording
from ptychostream.statements.radiation import Radiation

_log = logging.getLogger(__name__)
_NAN = (math.nan, math.nan)
_NO_COUNTS = np.empty((0, 0), np.uint8)
_AWAITED = 1 << 20
"""Frames, without their counts, that may wait for a position."""


@dataclass
class Counts:
    """The accounting of the frames: received = written + Σ dropped + beyond + unwritten + those in work.

    Attributes
    ----------
    received
        Updates that held a frame, good or bad; the caller counts them.
    written
        In the files, finished or not.
    dropped
        By `DropCause`.
    beyond
        Frames that came after the recording was complete.
    unwritten
        Good frames that could not be written.
    missed
        Gaps in the frame ids: lost before they came here.
    held
        Images that the detector's server held before the subscription, and that are of no scan that goes on; they are
        not received.
    without_position
        Frames that were written without a position.
    equal_times
        Frames that were written with the time stamp of the frame before, although their ids differ.
    """

    received: int = 0
    written: int = 0
    dropped: Counter[DropCause] = field(default_factory=Counter)
    beyond: int = 0
    unwritten: int = 0
    missed: int = 0
    held: int = 0
    without_position: int = 0
    equal_times: int = 0

    @property
    def lost(self) -> int:
        """Frames that should be in a file and are not."""
        meant = self.dropped[DropCause.DUPLICATE] + self.dropped[DropCause.UNSELECTED]
        return sum(self.dropped.values()) - meant + self.unwritten + self.missed


@dataclass(frozen=True)
class RecordedFile:
    """The file of one scan; `path` is the partial file where the scan was not recorded to its end."""

    path: Path
    scan_id: str
    frames: int
    missed: int
    without_position: int
    bytes: int
    finished: bool


def recorded_file(recording: ScanRecording, path: Path, missed: int, without_position: int) -> RecordedFile:
    """The result of `recording`, in the file `path`."""
    finished = path == recording.path
    return RecordedFile(
        path, recording.scan_id, recording.committed, missed, without_position, recording.bytes, finished
    )


@dataclass(frozen=True)
class ScanRules:
    """When scans begin and end, and what their files hold. See `ptychostream.recording.record.RecordSettings`."""

    intake: Intake
    columns: tuple[str, ...]
    linger_s: float
    position_wait_s: float
    frames: int | None
    scans: int | None
    radiation: Radiation = "photon"


_LONGEST_S = 10.0
"""How long after its end attribute a scan's file takes frames that keep coming with it."""


@dataclass(eq=False, kw_only=True)
class _RecordedRun(ScanRun):
    """A run that is being written to a file of its own."""

    recording: ScanRecording
    join: Join | None
    rows: dict[int, int] = field(default_factory=dict)  # by frame id, of those without a position so far
    new: list[tuple[RecordedFrame, tuple[float, float]]] = field(default_factory=list)
    unplaced: int = 0

    def frame(self, payload: RawPayload, frame_id: int, time_s: float, arrived: float) -> Frame:
        """What the join needs of a frame: all but its counts."""
        return Frame(
            self.scan, frame_id, time_s, _NO_COUNTS, payload.attributes, arrived, self.number, first=self.ids.first
        )


class ScanSorter:
    """Takes frames in order of arrival and writes each run of a scan to a file of its own.

    `ptychostream.frames.scan_boundary` assigns frames to runs, with repeated scans told by their times. A run ends when
    its end attribute rises, or when the next begins; its file stays open until no late frame has come for `linger_s`,
    and for late positions for `position_wait_s`.

    Parameters
    ----------
    names, rules
        Names of the files, and what they hold.
    positions
        Where the frames were taken; None: the positions are not recorded.
    on_begin
        Called with every recording as its scan begins.
    on_end
        Called with a recording that has all its frames, to close it, and with the numbers of the scan's missed frames
        and of its frames without a position.

    Raises
    ------
    ScanFileError
        From `take`, `tick` and `finish`, when a file cannot be written.
    """

    def __init__(
        self,
        names: FileNames,
        rules: ScanRules,
        positions: PositionSource | None,
        on_begin: Callable[[ScanRecording], None],
        on_end: Callable[[ScanRecording, int, int], None],
    ) -> None:
        self.counts = Counts()
        self._names = names
        self._rules = rules
        self._positions = positions
        self._on_begin = on_begin
        self._on_end = on_end
        self._runs = ScanRuns[_RecordedRun]()
        self._boundary = Boundary[_RecordedRun](BoundaryRules(late_s=math.inf, repeats=True))
        self._closed = self._rows = 0

    @property
    def complete(self) -> bool:
        """Whether every frame or scan that was asked for is there."""
        rules = self._rules
        return (rules.frames is not None and self._rows >= rules.frames) or (
            rules.scans is not None and self._closed >= rules.scans
        )

    @property
    def rows(self) -> int:
        """Frames taken for the files so far."""
        return self._rows

    def refuse(self, error: FrameError) -> None:
        """Count an update that cannot be used."""
        self._drop(error.cause)
        if error.raw_id is not None and self._runs.current is not None:
            self._runs.current.ids.refuse(error.raw_id)
        if self.counts.dropped[error.cause] == 1:
            _log.warning("%s; more of the kind are counted", error)

    def take(
        self,
        scan: str,
        frame: RawPayload,
        chunk: bytes,
        codec: str,
        arrived: float,
        now: float,
        fault: DropCause | None = None,
    ) -> None:
        """One good frame, that arrived at a POSIX time; `now` is monotonic. It is written with the next `flush`.

        A frame with a `fault` is counted under it and not written, and begins no file. Its end attribute counts.
        """
        time_s = frame.time or arrived
        one = self._run_of(scan, time_s, frame, codec, now, fault)
        if one is None:
            return
        held = one.recording
        if fault is None and (frame.shape, frame.dtype, codec) != (held.shape, held.dtype, held.codec):
            one.ids.refuse(frame.raw_id)
            self._drop(DropCause.SHAPE if frame.shape != one.recording.shape else DropCause.TYPE)
            return
        flag = self._rules.intake.flag(frame.attributes)
        frame_id = one.ids.accept(frame.raw_id, time_s)
        if frame_id is None:
            self._drop(DropCause.DUPLICATE)
            return
        if fault is not None:
            self._drop(fault)
            if self._boundary.ends(one, time_s, flag):
                self._runs.end(now)
            return
        row = one.recording.frames + len(one.new)
        place = self._place(one, row, one.frame(frame, frame_id, time_s, arrived))
        values = [_number(frame.attributes.get(name)) for name in self._rules.columns]
        one.new.append((RecordedFrame(chunk, frame_id, time_s, values), place))
        ends = self._boundary.ends(one, time_s, flag)
        one.note(time_s, now, stamped=bool(frame.time))
        self._rows += 1
        if ends:
            self._runs.end(now)

    def flush(self) -> None:
        """Write the frames that were taken."""
        for one in self._runs.oldest_first:
            if one.new:
                frames, places = zip(*one.new, strict=True)
                one.recording.append(frames, places)
                one.new.clear()

    def tick(self, now: float, *, commit: bool = False) -> None:
        """Use positions that have come; close files that are due at `now`, monotonic s; with `commit`, sync all."""
        for one in self._runs.oldest_first:
            if one.join is not None:
                self._settle(one, one.join.poll().placed)
            if one.ended is not None and self._is_due(one, one.ended, now):
                self._end(one)
            elif commit:
                one.recording.commit()

    @property
    def waiting(self) -> bool:
        """Whether a scan has ended whose positions may still come."""
        return any(one.ended is not None and one.rows for one in self._runs.oldest_first)

    def no_more_frames(self, now: float) -> None:
        """End every scan at `now`, monotonic seconds; positions may still come."""
        self._runs.end(now, math.inf)

    def finish(self) -> None:
        """Close every file: no more frames come."""
        for one in self._runs.oldest_first:
            self._end(one)

    def abandon(self) -> list[RecordedFile]:
        """Close every file after a failure of the disk: count the frames that are not in a file; return the files."""
        files = []
        for one in self._runs.oldest_first:
            one.recording.abandon()
            self.counts.unwritten += one.recording.frames + len(one.new) - one.recording.committed
            self.counts.written += one.recording.committed
            self._leave(one)
            files.append(recorded_file(one.recording, one.recording.partial, one.ids.missed, one.unplaced))
        return files

    def _is_due(self, one: _RecordedRun, ended: float, now: float) -> bool:
        """Whether the file of a run that has ended is to be closed."""
        quiet_s, linger_s = now - max(ended, one.arrived), self._rules.linger_s
        late_end = quiet_s >= linger_s or now - ended >= max(linger_s, _LONGEST_S)
        return late_end and (not one.rows or now - ended >= self._rules.position_wait_s)

    def _run_of(
        self, scan: str, time_s: float, frame: RawPayload, codec: str, now: float, fault: DropCause | None
    ) -> _RecordedRun | None:
        """The run that a frame belongs to, perhaps begun by it; None where the frame is not to be written."""
        if self._rules.frames is not None and self._rows >= self._rules.frames:
            self.counts.beyond += 1
            return None
        chosen = self._boundary.choose(scan, time_s, self._runs, now, self._rules.intake.flag(frame.attributes))
        if chosen is None:
            self._drop(DropCause.LATE)
            return None
        if not isinstance(chosen, Begin):
            return chosen
        if self._rules.scans is not None and self._runs.next_number > self._rules.scans:
            self.counts.beyond += 1
            self._runs.end(now, time_s)  # another scan has begun
            return None
        if fault is not None:
            self._drop(fault)
            return None
        if self._positions is not None and not self._positions.outlasts_scan:
            for other in self._runs.oldest_first:
                self._no_more_positions(other)  # those that come now are the next scan's
        return self._begin(scan, frame, codec, time_s, now)

    def _begin(self, scan: str, frame: RawPayload, codec: str, time_s: float, now: float) -> _RecordedRun:
        number = self._runs.next_number
        recording = ScanRecording(
            self._names.path(scan, number),
            frame.shape,
            frame.dtype,
            codec=codec,
            scan_id=scan,
            radiation=self._rules.radiation,
            columns=self._rules.columns,
        )
        self._on_begin(recording)
        _log.info("recording scan %r to %s", scan, recording.path)
        join = None if self._positions is None else Join(self._positions, _AWAITED)
        one = _RecordedRun(number, scan, now, recording=recording, join=join)
        self._runs.add(one, now, time_s)
        return one

    def _place(self, one: _RecordedRun, row: int, frame: Frame) -> tuple[float, float]:
        """The frame's position; NaN where it comes later or never."""
        if one.join is None:
            one.unplaced += 1
            return _NAN
        joined = one.join.add(frame)
        others = [found for found in joined.placed if found.frame is not frame]
        self._settle(one, others)
        if len(others) < len(joined.placed):
            return next((found.x_m, found.y_m) for found in joined.placed if found.frame is frame)
        gone = {dropped.id for dropped, _ in joined.dropped}
        one.unplaced += len(gone)
        if frame.id not in gone:
            one.rows[frame.id] = row
        for frame_id in gone - {frame.id}:
            del one.rows[frame_id]
        return _NAN

    def _settle(self, one: _RecordedRun, placed: list[Any]) -> None:
        for found in placed:
            one.recording.place(one.rows.pop(found.frame.id), found.x_m, found.y_m)

    def _end(self, one: _RecordedRun) -> None:
        self._no_more_positions(one)
        if one.new:
            frames, places = zip(*one.new, strict=True)
            one.recording.append(frames, places)
            one.new.clear()
        self._on_end(one.recording, one.ids.missed, one.unplaced)
        self.counts.written += one.recording.frames
        self._leave(one)

    def _no_more_positions(self, one: _RecordedRun) -> None:
        if one.join is not None:
            self._settle(one, one.join.end_scan(one.scan).placed)
            one.unplaced += len(one.rows)
            one.rows.clear()
            one.join = None

    def _leave(self, one: _RecordedRun) -> None:
        self._closed += 1
        self.counts.missed += one.ids.missed
        self.counts.without_position += one.unplaced
        self.counts.equal_times += one.equal_times
        self._runs.forget(one)

    def _drop(self, cause: DropCause) -> None:
        self.counts.dropped[cause] += 1


def _number(value: Any) -> float:
    return float(value) if isinstance(value, int | float) else math.nan
