"""One consumer of a cluster: its pipeline, the orders it follows, and the reports it gives."""

from __future__ import annotations

import logging
import threading
import time
import uuid
from collections.abc import Callable
from pathlib import Path

import pvaccess as pva

from ptychostream.cluster.id_set import IdSet
from ptychostream.cluster.orders import Orders
from ptychostream.errors import DropCause, FrameError, PtychostreamError, StreamError
from ptychostream.frames.frames import Frame
from ptychostream.frames.held_image import HeldImages, Seen
from ptychostream.frames.stream_watch import expected_of
from ptychostream.model.contract import ModelContract
from ptychostream.model.raw_shape import shape_judge
from ptychostream.plugins.consumer import consumer_model
from ptychostream.plugins.consumer.consumer_pipeline import ConsumerPipeline
from ptychostream.plugins.consumer.consumer_report import (
    FINAL,
    MOST_PIXELS,
    STATUS,
    EngineReport,
    FrameReport,
    Report,
    RunReport,
)
from ptychostream.plugins.consumer.consumer_settings import ConsumerSettings
from ptychostream.plugins.consumer.consumer_word import checked_orders
from ptychostream.plugins.consumer.pvapy_reading import decode
from ptychostream.plugins.engines.plain import PLAIN, is_plain
from ptychostream.plugins.flow.figures import figures
from ptychostream.plugins.flow.scan_boundary import BoundarySettings
from ptychostream.plugins.flow.snapshot import RunFigures, Snapshot
from ptychostream.pva.reading import ShapeFault, any_shape

log = logging.getLogger(__name__)

STATE = ""
_DRAIN_S = 10.0
_KEPT_RUNS = 2  # the last one's final state, and one that takes late frames

Publish = Callable[[str, Report], None]
"""(channel's suffix, report)"""


class Worker:
    """Receives updates in one thread, stitches in the pipeline's, reports in its own.

    Parameters
    ----------
    settings
        See `ConsumerSettings`.
    consumer
        Number of the consumer.
    publish
        Serves a report on the channel of suffix `STATE`, `STATUS` or `FINAL`.
    """

    pipelines: type[ConsumerPipeline] = ConsumerPipeline
    reports: type[Report] = Report
    """Kind of the reports: a subclass declares further figures, as that of the pipeline's snapshots does."""

    def __init__(self, settings: ConsumerSettings, consumer: int, publish: Publish) -> None:
        self._settings = settings
        self._publish = publish
        self._consumer = consumer
        self._instance = uuid.uuid4().hex[:12]
        limit = min(settings.pipeline.max_canvas_pixels, MOST_PIXELS)
        self.pipeline = self.pipelines(
            settings.pipeline.model_copy(update={"max_canvas_pixels": limit}),
            settings.positions.make(),
            BoundarySettings(keep=_KEPT_RUNS),
            int(settings.recall_mib * 2**20),
        )
        self.pipeline.dose_scale = settings.dose_scale
        self._ended = ""  # the scan that the frame being taken has ended; of the receiving thread
        self.pipeline.on_end = lambda scan: setattr(self, "_ended", scan)
        positions = settings.positions
        places = (positions.x_attribute, positions.y_attribute) if positions.source == "attributes" else ()
        given = settings.input
        self._intake = given.intake(given.scan_attribute, given.end_attribute, places)
        self.pipeline.on_contract = self._expect
        self._shape_fault: ShapeFault = any_shape
        self._held: HeldImages[Frame] = HeldImages()
        self._taking = threading.Lock()  # guards the next two, so that every frame that was submitted is in its set
        self._ids: dict[int, IdSet] = {}  # by run
        self._latest: Frame | None = None
        self._lock = threading.Lock()  # guards what follows
        self._saw_end = ""
        self._drained = 0
        self._orders: Orders | None = None  # carried out
        self._told: Orders | None = None  # to be carried out
        self._state_asked = True
        self._engine = EngineReport()
        self._model_failure = "no model yet"
        self._one_load = threading.Lock()  # the model that was ordered last is put to use last
        self._loading: Path | None = None
        self._give_up = threading.Event()  # of the model that is being loaded
        # of the reporting thread
        self._sequence = 0
        self._wake = threading.Event()
        self._stopping = False
        self._reported: object = None
        self._finals_reported: dict[int, RunFigures] = {}
        self._thread = threading.Thread(target=self._run, name="reports", daemon=True)

    def start(self) -> None:
        """Start the pipeline and the reports, and build the first engine in another thread."""
        self.pipeline.start()
        self._thread.start()
        settings = self._settings
        if settings.model is not None or settings.engine.name == PLAIN:
            self._change_model(settings.model, "")

    def stop(self) -> bool:
        """Stitch the frames that have come and report them. False when the engine did not return."""
        clean = self.pipeline.stop(_DRAIN_S)
        self._stopping = True
        self.ask_state()
        if self._thread.ident is not None:
            self._thread.join()
        return clean

    # What comes in

    def take(self, update: pva.PvObject) -> None:
        """Process one update of the detector's channel."""
        try:
            raw = decode(update, self._intake.wanted, self._shape_fault)
        except FrameError as error:
            self._held.empty()
            self._reject(error, update)
            return
        if raw is None:
            self._held.empty()
            return
        frame = self._intake.frame(raw, time.time())
        for one in self._held.take(frame, Seen(frame.scan, frame.id, raw.time, frame.flag)):
            self._take(one)

    def _take(self, frame: Frame) -> None:
        orders = self._orders
        settled = orders is not None and bool(orders.settled) and frame.scan == orders.settled
        if orders is not None and settled and frame.time <= orders.settled_time:
            what = f"frame {frame.id} came again, after scan {frame.scan} was complete"
            self.pipeline.reject(FrameError(DropCause.LATE, what, where="consumer"))
            return
        with self._taking:
            begins = frame.scan != self._latest.scan if self._latest else True
            self._ended = ""
            self.pipeline.submit(frame)
            self._latest = frame
            if frame.run:
                begins = begins or frame.run not in self._ids
                self._ids.setdefault(frame.run, IdSet()).add(frame.id)
        if begins or self._ended:
            with self._lock:
                self._saw_end = self._ended
            self.ask_state()

    def _expect(self, contract: ModelContract) -> None:
        """Compare the frames with the contract of the model that runs; engine None expects nothing."""
        self._shape_fault = shape_judge(contract)
        given = self._settings.input.region.model_dump()
        self._intake.watch.expect(None if is_plain(contract) else expected_of(contract.said(), given))

    def ask_state(self) -> None:
        """Report the whole state now."""
        self._state_asked = True
        self._wake.set()

    def follow(self, orders: Orders) -> None:
        """Follow the collector's orders; the reporting thread carries them out."""
        with self._lock:
            self._told = orders
        self._wake.set()

    def figures(self) -> Snapshot:
        """The pipeline's figures."""
        return self.pipeline.snapshot()

    def _reject(self, error: FrameError, update: pva.PvObject) -> None:
        self.pipeline.reject(error)
        try:
            raw_id = update.getInt("uniqueId")
        except pva.PvaException:
            return  # no NTNDArray at all: it has no number that could be missing
        runs = self.pipeline.snapshot().runs
        if runs and runs[0].active:
            with self._taking:
                self._ids.setdefault(runs[0].number, IdSet()).add(raw_id)

    def _end(self, orders: Orders) -> None:
        """End a scan; a full report follows when its last frame is stitched or dropped."""

        def drained(_: object) -> None:
            with self._lock:
                if self._orders is orders or self._orders is None or self._orders.session == orders.session:
                    self._drained = orders.ends
            self.ask_state()

        self.pipeline.end_scan(orders.ended).add_done_callback(drained)

    # Orders

    def _carry_out(self) -> None:
        with self._lock:
            orders, self._told = self._told, None
        if orders is None:
            return
        before = self._orders
        known = before is not None and before.session == orders.session
        if known and before is not None:
            if orders.resets != before.resets:
                self.pipeline.between_batches(self._reset)
            if orders.scans_begun != before.scans_begun:
                self._begin(orders.unnamed_scan)
        else:
            log.info("following the collector of session %s", orders.session)
            self._intake.unnamed, self._drained = orders.unnamed_scan, 0
        ended_anew = not known or before is None or orders.ends != before.ends
        if orders.dose_scale > 0:
            self.pipeline.dose_scale = orders.dose_scale
        ordered_anew = not known or before is None or orders.models != before.models
        there = orders.model_sha256 == self._engine.sha256 or Path(orders.model) == self._loading
        if orders.model and ordered_anew and not there:
            self._change_model(Path(orders.model), orders.model_sha256)
        for run, frame_id in orders.recall.get(self._instance, ()):
            self._take_back(run, frame_id)
        self._orders = orders
        if orders.ended and ended_anew:
            self._end(orders)
        self.ask_state()

    def _reset(self) -> None:
        self.pipeline.reset()
        canvas = self.pipeline.canvas()
        with self._taking:
            if canvas is not None:
                self._ids.pop(canvas.run, None)

    def _take_back(self, run: int, frame_id: int) -> None:
        """Take a frame off the canvas that another consumer has had before."""
        if self.pipeline.between_batches(lambda: self.pipeline.take_back(run, frame_id)):
            log.info("frame %d was repeated by the distributor: taken back", frame_id)
            with self._taking:
                self._ids.get(run, IdSet()).discard(frame_id)

    def _begin(self, scan: str) -> None:
        self._intake.unnamed = scan
        self.pipeline.start_scan(scan, anew=True)

    # The model

    def _change_model(self, path: Path | None, sha256: str) -> None:
        """Load a model in a thread of its own: building an engine can take minutes. It gives way to the next one."""
        self._give_up.set()
        self._give_up = give_up = threading.Event()
        self._loading = path
        threading.Thread(target=self._load, args=(path, sha256, give_up), name="model", daemon=True).start()

    def _load(self, path: Path | None, sha256: str, give_up: threading.Event) -> None:
        with self._one_load:
            self._install(path, sha256, give_up)
        if not give_up.is_set():
            self._loading = None
        self.ask_state()

    def _install(self, path: Path | None, sha256: str, give_up: threading.Event) -> None:
        try:
            engine = consumer_model.install(self.pipeline, self._settings, path, sha256, give_up)
        except Exception as error:
            if give_up.is_set():
                log.info("%s gave way to the next model: %s", path, error)
                return
            log.log(logging.ERROR, "%s", error, exc_info=not isinstance(error, PtychostreamError))
            with self._lock:
                self._model_failure = f"{path}: {error}"
        else:
            log.info("%s runs on %s %s (%s)", engine.model, engine.name, engine.version, engine.precision)
            with self._lock:
                self._engine, self._model_failure = engine, ""

    # Reports

    def _run(self) -> None:
        due = time.monotonic()
        while not self._stopping:
            try:
                self._wake.wait(self._settings.status_s)
                self._wake.clear()
                self._carry_out()
                asked, self._state_asked = self._state_asked, False
                now = time.monotonic()
                if asked or now >= due:
                    due = now + self._settings.state_s
                    self._report_states(asked)
                self._publish(STATUS, self._report(self.pipeline.snapshot()))
            except Exception:
                log.exception("a report was lost")
        self._report_states(asked=True)

    def _report_states(self, asked: bool) -> None:
        """Report the canvases that have changed: of the finished runs, oldest first, then of the current one."""
        snapshot = self.pipeline.snapshot()
        finished = [run for run in reversed(snapshot.runs[1:]) if run.stitched]
        for run in finished:
            if self._finals_reported.get(run.number) != run:
                self._report_state(FINAL, run.number)
        self._finals_reported = {run.number: run for run in finished}
        seen = (snapshot.received, snapshot.stitched, snapshot.runs[:1], self._orders, self._drained)
        if asked or seen != self._reported:
            self._report_state(STATE, None)
            self._reported = seen
        with self._taking:
            kept = {run.number for run in snapshot.runs}
            for gone in [number for number in self._ids if number not in kept]:
                del self._ids[gone]

    def _report_state(self, suffix: str, number: int | None) -> None:
        def read() -> Report:
            with self._taking:
                return self._report(self.pipeline.snapshot(), number, with_canvas=True)

        self._publish(suffix, self.pipeline.between_batches(read))

    def _report(self, snapshot: Snapshot, number: int | None = None, with_canvas: bool = False) -> Report:
        self._sequence += 1
        latest = self._latest
        known = {name: getattr(snapshot, name) for name in figures(self.reports)}
        height, width = latest.counts.shape if latest else (0, 0)
        with self._lock:
            orders = self._orders
            return self.reports(
                **known,
                consumer=self._consumer,
                instance=self._instance,
                sequence=self._sequence,
                time=time.time(),
                session=orders.session if orders else "",
                resets=orders.resets if orders else 0,
                models=orders.models if orders else 0,
                recalls=orders.recalls if orders else 0,
                drained=self._drained,
                saw_end=self._saw_end,
                held_images=self._held.count,
                contradiction=self._intake.watch.told,
                contradicts_since=self._intake.watch.since,
                model_failure=self._model_failure,
                engine=self._engine,
                run=self._run_report(snapshot, number, with_canvas),
                frame=FrameReport(latest.raw_id, height, width, str(latest.counts.dtype)) if latest else FrameReport(),
            )

    def _run_report(self, snapshot: Snapshot, number: int | None, with_canvas: bool) -> RunReport:
        """The report of a run by its number, or of the current one."""
        figures = next((run for run in snapshot.runs if number in (None, run.number)), None)
        if figures is None:
            return RunReport()
        canvas = self.pipeline.canvas(figures.number) if with_canvas else None
        ids = self._ids.get(figures.number)
        return RunReport(
            number=figures.number,
            scan=figures.scan,
            active=figures.active,
            received=figures.received,
            stitched=figures.stitched,
            dropped=figures.dropped,
            began=figures.first_time or 0.0,
            latest=figures.last_time or 0.0,
            ids=(ids.copy() if ids is not None else IdSet()) if with_canvas else None,
            laid=self.pipeline.laid(figures.number) if with_canvas else None,
            canvas=canvas.canvas.state() if canvas is not None else None,
            patch=canvas.last if canvas is not None else None,
        )


def parse_orders(text: str, key: bytes | None = None) -> Orders | None:
    """The orders in a record's text; None, with a warning, where it cannot be read or is not signed with the key."""
    try:
        return Orders.parse(checked_orders(text, key))
    except StreamError as error:
        log.warning("%s", error)
        return None
