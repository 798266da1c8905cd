"""A PVA image stream written to scan files: received, compressed in threads, written in order.

Three stages with a bound each. The channel's reader waits while the middle is full, which fills the server's queue;
what that cannot hold is missing from the frame ids and counted there. Nothing is lost on this side unless the disk
fails, and then it is counted.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from p4p import Value

from ptychostream.errors import DropCause, FrameError, PtychostreamError, StreamError
from ptychostream.frames.held_image import HeldImages, Seen
from ptychostream.frames.intake import Intake
from ptychostream.frames.stream_watch import Said, state_region
from ptychostream.pva.channel_reader import ChannelReader, each
from ptychostream.pva.reading import UPDATE_FIELDS, RawPayload, payload_of_value
from ptychostream.recording.record_queue import BoundedQueue
from ptychostream.recording.record_scans import Counts, RecordedFile, ScanRules, ScanSorter, recorded_file
from ptychostream.recording.record_settings import PositionFeed, RecordSettings
from ptychostream.scans.file_names import FileNames
from ptychostream.scans.hdf5_chunks import as_chunk, file_codec
from ptychostream.scans.scan_recording import ScanRecording, check_free
from ptychostream.statements.description import Description

_IDLE_S = 0.05
_REST_S = 0.004
_BATCH, _BATCH_BYTES = 32, 8 << 20
"""Frames that one thread compresses at a time, and their bytes: one frame where it is larger."""


@dataclass(frozen=True)
class Recorded:
    """The result of a recording.

    Attributes
    ----------
    seconds
        From the first frame's arrival to the last's.
    error
        Why the recording ended early; None where it did not.
    """

    counts: Counts
    files: list[RecordedFile]
    seconds: float
    error: PtychostreamError | None


class _Arrived(NamedTuple):
    scan: str
    frame: RawPayload
    codec: str
    at: float
    fault: DropCause | None = None


_MOST_SAID = 64
_Packed = tuple[_Arrived | FrameError, bytes | FrameError]


def record(
    channel: str,
    template: str,
    settings: RecordSettings,
    stop: threading.Event,
    positions: PositionFeed | None = None,
    on_progress: Callable[[Counts, int], None] = lambda *_: None,
    on_scan: Callable[[str], None] = lambda _: None,
) -> Recorded:
    """Record the NTNDArrays of `channel` until `stop` is set, or all that `settings` ask for is there.

    Parameters
    ----------
    template
        See `FileNames`.
    positions
        Where the frames were taken; None leaves their columns NaN.
    on_progress
        Called now and then with the counts so far and the frames taken for the files.
    on_scan
        Called with each scan's id as it begins.

    Returns
    -------
    What was recorded, an error of the disk's included: what was written up to then is readable.

    Raises
    ------
    ConfigError
        The template is wrong.
    ScanFileError
        The file exists already.
    StreamError
        No frame within `settings.timeout_s`.
    """
    return _Recording(channel, template, settings, stop, positions, on_progress, on_scan).run()


class _Recording:
    """One call of `record`. All but `_arrive` and `_pack` runs in the caller's thread."""

    def __init__(
        self,
        channel: str,
        template: str,
        settings: RecordSettings,
        stop: threading.Event,
        positions: PositionFeed | None,
        on_progress: Callable[[Counts, int], None],
        on_scan: Callable[[str], None],
    ) -> None:
        names = FileNames(template)
        if not names.several:
            check_free(names.path("", 1))
        self._settings, self._stop, self._positions = settings, stop, positions
        self._channel, self._on_progress, self._on_scan = channel, on_progress, on_scan
        further = (*settings.position_attributes, *settings.attributes)
        select = (settings.select_attribute, settings.select_value)
        self._intake = Intake(
            settings.scan_attribute,
            settings.end_attribute,
            further,
            select=select,
            bit_depth=settings.bit_depth_attribute,
        )
        self._intake.unnamed = settings.scan_id
        self._intake.watch.source = channel
        self._held: HeldImages[_Arrived] = HeldImages()
        self._codec: str = "" if settings.codec == "auto" else settings.codec
        self._arrivals: BoundedQueue[_Arrived | FrameError | None] = BoundedQueue(
            settings.queue_size, settings.queue_mb << 20
        )
        self._reader = ChannelReader(
            channel,
            UPDATE_FIELDS,
            settings.queue_size,
            each(self._arrive),
            self._connected,
            name="record",
            rest_s=_REST_S,
        )
        rules = ScanRules(
            self._intake,
            settings.attributes,
            settings.linger_s,
            settings.position_wait_s,
            settings.frames,
            settings.scans if names.several else 1,
            settings.metadata.beam,
        )
        self._sorter = ScanSorter(
            names, rules, positions.source if positions else None, self._scan_begins, self._scan_ends
        )
        self._workers = ThreadPoolExecutor(settings.threads, "pack")
        self._aside = ThreadPoolExecutor(2, "aside")  # reads PVs and closes files without delaying the frames
        self._metadata: dict[Path, Future[tuple[dict[str, float | None], dict[str, Any]]]] = {}
        self._closing: list[tuple[ScanRecording, Future[RecordedFile]]] = []
        self._files: list[RecordedFile] = []
        self._first_s = self._last_s = 0.0
        self._error: PtychostreamError | None = None
        self._said: dict[str, Description] = {}
        self._said_of: str | None = None

    def run(self) -> Recorded:
        began = time.monotonic()
        with self._workers, self._aside:
            if self._positions:
                self._positions.start()
            self._reader.start()
            try:
                self._stream(began)
                self._drain()
                self._last_positions()
                self._guard(self._sorter.finish)
            except BaseException:
                self._sorter.abandon()  # an HDF5 file that is still open at exit crashes the process
                raise
            finally:
                if self._positions:
                    self._positions.stop()
            self._collect(wait=True)
        counts = self._sorter.counts
        counts.held = self._held.count
        self._on_progress(counts, self._sorter.rows)
        return Recorded(counts, self._files, self._last_s - self._first_s, self._error)

    # ------------------------------------------------------------ the reader's thread

    def _arrive(self, update: Value) -> None:
        now = time.time()
        try:
            frame = payload_of_value(update, self._intake.wanted)
            if frame is None:
                self._held.empty()
                return
            scan = self._intake.scan_of(frame.attributes)
            said = Said(frame.region, frame.shape, frame.dtype, codec=frame.codec)
            fault = self._intake.fault(scan, said, frame.attributes, frame.time or now, now)
            if fault is None:
                self._note_statements(frame, scan)
        except FrameError as error:
            self._held.empty()
            self._arrivals.put(error)
            return
        flag = self._intake.flag(frame.attributes)
        for one in self._held.take(_Arrived(scan, frame, "", now, fault), Seen(scan, frame.raw_id, frame.time, flag)):
            # the first frame that is wanted decides for all, so that the workers need not ask which file is open
            if one.fault is None:
                self._codec = self._codec or file_codec(one.frame.codec)
            self._arrivals.put(one._replace(codec=self._codec), one.frame.payload.nbytes)

    def _connected(self, connected: bool) -> None:
        if connected:
            self._held.subscribed()

    def _note_statements(self, frame: RawPayload, scan: str) -> None:
        """Keep what the first frame of each scan says of region and bit depth, until the scan's file begins."""
        if scan != self._said_of:
            self._said_of = scan
            self._said[scan] = said = Description(self._channel)
            state_region(said, frame.region)
            for bits in self._intake.watch.description.about("bit_depth"):
                said.add(bits)
            if len(self._said) > _MOST_SAID:  # of scans that never got a file
                del self._said[next(iter(self._said))]

    # ------------------------------------------------------------ the workers

    def _pack(self, batch: list[_Arrived | FrameError]) -> list[_Packed]:
        return [(one, one if isinstance(one, FrameError) else self._chunk(one)) for one in batch]

    def _chunk(self, arrived: _Arrived) -> bytes | FrameError:
        frame = arrived.frame
        if arrived.fault is not None:
            return b""
        try:
            return as_chunk(
                frame.payload, frame.codec, frame.shape, frame.dtype, arrived.codec, check=self._settings.check
            )
        except FrameError as error:
            return error

    # ------------------------------------------------------------ the caller's thread

    def _stream(self, began: float) -> None:
        """Take frames until the recording is to stop."""
        settings = self._settings
        working: deque[Future[list[_Packed]]] = deque()
        committed = shown = began
        while not (self._stop.is_set() or self._error or self._sorter.complete):
            self._step(working)
            now = time.monotonic()
            if settings.seconds is not None and now - began >= settings.seconds:
                break
            if settings.timeout_s is not None and not self._first_s and now - began >= settings.timeout_s:
                self._drain()
                held = ", only the image that the server held before" if self._held.count else ""
                raise StreamError(
                    f"no frame within {settings.timeout_s:g} s{held}",
                    where=self._channel,
                    remedy="start the detector, or check its PVA plugin and EPICS_PVA_ADDR_LIST",
                )
            if self._positions:
                self._positions.bring()
            commit = now - committed >= settings.commit_s
            committed = now if commit else committed
            self._guard(self._sorter.tick, now, commit=commit)
            self._collect(wait=False)
            if now - shown >= _IDLE_S * 4:
                shown = now
                self._on_progress(self._sorter.counts, self._sorter.rows)
        for future in working:
            self._sort(future.result())

    def _last_positions(self) -> None:
        """Wait for positions that are still missing, as long as the settings say."""
        self._sorter.no_more_frames(time.monotonic())
        while self._positions and not self._stop.is_set() and self._sorter.waiting:
            self._positions.bring()
            self._guard(self._sorter.tick, time.monotonic())
            self._stop.wait(_IDLE_S)
        if self._positions:
            self._positions.bring()

    def _step(self, working: deque[Future[list[_Packed]]]) -> bool:
        """Hand arrived frames to the workers, and compressed ones to the files; False at the end."""
        batch, goes_on = self._next_batch(wait=not working)
        if batch:
            working.append(self._workers.submit(self._pack, batch))
        while working and (not batch or working[0].done() or len(working) > self._settings.threads):
            self._sort(working.popleft().result())
        return goes_on

    def _next_batch(self, *, wait: bool) -> tuple[list[_Arrived | FrameError], bool]:
        taken = self._arrivals.take(_BATCH, _BATCH_BYTES, _IDLE_S if wait else 0.0)
        return [one for one in taken if one is not None], None not in taken

    def _drain(self) -> None:
        """Unsubscribe, and write the frames that have come."""

        def end() -> None:
            self._reader.stop()
            self._arrivals.put(None)

        thread = threading.Thread(target=end, name="unsubscribe", daemon=True)
        thread.start()  # the reader may wait for the queue that is emptied here
        working: deque[Future[list[_Packed]]] = deque()
        while self._step(working):
            pass
        for future in working:
            self._sort(future.result())
        thread.join()

    def _sort(self, packed: list[_Packed]) -> None:
        now = time.monotonic()
        counts = self._sorter.counts
        for arrived, chunk in packed:
            counts.received += 1
            if isinstance(chunk, FrameError):
                self._sorter.refuse(chunk)
            elif isinstance(arrived, _Arrived):
                self._first_s = self._first_s or arrived.at
                scan, frame, codec, at, fault = arrived
                if not self._guard(self._sorter.take, scan, frame, chunk, codec, at, now, fault):
                    counts.unwritten += 1
                self._last_s = arrived.at
        self._guard(self._sorter.flush)

    def _guard(self, action: Callable[..., None], *arguments: Any, **named: Any) -> bool:
        """Call `action`, unless the disk has failed; False where it has failed, now or before."""
        if self._error is None:
            try:
                action(*arguments, **named)
            except PtychostreamError as error:
                self._fail(error)
        return self._error is None

    def _scan_begins(self, recording: ScanRecording) -> None:
        if recording.scan_id in self._said:
            recording.state(self._said.pop(recording.scan_id))
        self._metadata[recording.path] = self._aside.submit(self._settings.metadata.read)
        if self._positions:
            self._positions.begin(self._last_s)
        self._on_scan(recording.scan_id)

    def _scan_ends(self, recording: ScanRecording, missed: int, unplaced: int) -> None:
        metadata = self._metadata.pop(recording.path)
        closing = self._aside.submit(self._close, recording, metadata, missed, unplaced)
        self._closing.append((recording, closing))

    def _close(
        self,
        recording: ScanRecording,
        reading: Future[tuple[dict[str, float | None], dict[str, Any]]],
        missed: int,
        unplaced: int,
    ) -> RecordedFile:
        """Finish a file in another thread, so that slow PVs or a slow disk do not delay the next scan's frames."""
        geometry, metadata = reading.result()
        recording.set_geometry(**geometry)
        path = recording.finish({**metadata, "channel": self._channel, "missed": missed, "without_position": unplaced})
        return recorded_file(recording, path, missed, unplaced)

    def _collect(self, *, wait: bool) -> None:
        """Take the files that other threads have finished."""
        for recording, future in list(self._closing):
            if not (wait or future.done()):
                continue
            self._closing.remove((recording, future))
            try:
                self._files.append(future.result())
            except PtychostreamError as error:
                lost = recording.frames - recording.committed
                self._sorter.counts.written -= lost
                self._sorter.counts.unwritten += lost
                self._files.append(recorded_file(recording, recording.partial, 0, 0))
                self._fail(error)

    def _fail(self, error: PtychostreamError) -> None:
        """The first error ends the recording; what is open stays as its last commit left it."""
        if self._error is None:
            self._error = error
            self._files += self._sorter.abandon()
