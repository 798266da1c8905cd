"""From received frames to the canvas: join, batch, infer, stitch, and the accounting of every frame.

One lock guards the frames' flow; it is never held while a frame is decoded, inferred or stitched. One
thread owns the engine. Every frame that `submit` or `reject` takes is at every moment in exactly one
place: stitched, pending, or dropped under a cause.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from functools import partial

from ptychostream.errors import DropCause, FrameError
from ptychostream.frames.frames import Frame, PlacedFrame
from ptychostream.frames.measured_frames import FrameLimits
from ptychostream.model.contract import ModelContract
from ptychostream.plugins.flow.batcher import Batcher, frames_at_once
from ptychostream.plugins.flow.frame_flow import FrameFlow
from ptychostream.plugins.flow.scan_boundary import BoundarySettings
from ptychostream.plugins.flow.snapshot import RunFigures, Snapshot, Stitched
from ptychostream.plugins.frame_screen import FrameScreen
from ptychostream.plugins.inference import Inference, Patches, describe
from ptychostream.plugins.mosaic import Laid, Mosaic, RunCanvas
from ptychostream.plugins.pipeline_figures import PipelineFigures
from ptychostream.plugins.pipeline_settings import PipelineSettings
from ptychostream.plugins.scan_dose import ScanDose
from ptychostream.plugins.scan_ends import ScanEnds, log_finished
from ptychostream.plugins.stage_times import BatchTimes, StageTimes
from ptychostream.plugins.swap import EngineFactory, Swap, SwapQueue, close_engine
from ptychostream.positions.positions import PositionSource

__all__ = ["Pipeline", "PipelineSettings"]

_log = logging.getLogger(__name__)


class Pipeline:
    """Takes frames in from any thread and stitches them in its own.

    Parameters
    ----------
    settings
        See `PipelineSettings`.
    positions
        The position source; every call to it is made under the pipeline's lock.
    scans
        What tells scans apart, and how many finished canvases are kept.
    """

    snapshots: type[Snapshot] = Snapshot
    """Kind of what `snapshot` gives: a subclass declares further figures."""
    _mosaic_kind: type[Mosaic] = Mosaic

    def __init__(
        self, settings: PipelineSettings, positions: PositionSource, scans: BoundarySettings | None = None
    ) -> None:
        self.dose_scale = 1.0
        """Factor by which the model is told that its counts were scaled, where it is not chosen for each scan."""
        self.scan_dose = ScanDose()
        """Chooses it for each scan, once it is `automatic`."""
        self.on_patches: Callable[[ModelContract, Patches], None] = lambda *_: None
        """Called in the inference thread with every batch's contract and patches; must not keep them, nor take long."""
        self.on_finished: Callable[[RunFigures, RunCanvas | None], None] = log_finished
        """Called for each run that has ended, with its figures and its canvas; again when frames came after that. It
        must not block."""
        self.on_end: Callable[[str], None] = lambda _: None
        """Called with a scan's id when a frame's end attribute has ended it, before a later frame is taken."""
        self.on_contract: Callable[[ModelContract], None] = lambda _: None
        """Called in the inference thread with the contract of an engine that takes over."""
        self._wake = threading.Condition(threading.Lock())
        self._thread = threading.Thread(target=self._run, name="inference", daemon=True)
        self._swaps = SwapQueue(self._notify)
        self._mosaic = self._mosaic_kind(settings.max_canvas_pixels)
        self._inference: Inference | None = None  # set by the inference thread alone
        self._screen = FrameScreen(settings.measured)  # the inference thread's, but for its settings
        self._failures = 0  # of batches, in a row; the inference thread's
        # The rest is guarded by the lock of `_wake`.
        self._settings = settings
        self._stopping = False
        self._first_engine_comes = False
        batcher = Batcher(settings.batch, settings.max_latency_s, settings.queue_size)
        self._flow = FrameFlow(positions, settings.join_size, batcher, scans)
        self._apply_settings()
        self._ends = ScanEnds(self._flow, self._mosaic, lambda run, canvas: self.on_finished(run, canvas))
        self.times = StageTimes()
        """Where the time of the running scan's frames goes."""
        self._figures = PipelineFigures()
        self._taken = 0.0  # when the inference thread last looked for a batch

    def start(self) -> None:
        """Start the inference thread."""
        self._thread.start()

    def stop(self, timeout_s: float = 30.0) -> bool:
        """Accept no more frames, infer those that wait, close the engine.

        Returns
        -------
        bool
            False when the engine did not return within `timeout_s`; the batch in flight stays pending.
        """
        self._swaps.close()
        with self._flowing():
            self._flow.close(time.monotonic())
            self._stopping = True
        if self._thread.ident is not None:
            self._thread.join(timeout_s)
        return not self._thread.is_alive()

    # What comes in

    def submit(self, frame: Frame) -> None:
        """Take one frame; its `id` is the detector's raw uniqueId and is unwrapped here."""
        self.submit_all((frame,))

    def submit_all(self, frames: Sequence[Frame]) -> None:
        """Take frames in this order, as `submit`; one call costs little more than for one frame."""
        left, ended = iter(frames), True
        while ended:
            with self._flowing():
                now = time.monotonic()
                taken, scan, ended = self._flow.submit_up_to_end(left, time.time(), now)
                self._figures.note_received(taken, now)
            if ended:
                self.on_end(scan)

    def reject(self, error: FrameError) -> None:
        """Count a frame that could not be read, under the error's cause."""
        with self._wake:
            self._flow.reject(error.cause, error.raw_id)
            self._figures.note_received(1, time.monotonic())
            self._figures.message = str(error)

    def update_positions(self, update: Callable[[], None]) -> None:
        """Run `update`, which changes the position source, and place the frames that waited for it."""
        with self._flowing():
            update()
            self._flow.poll(time.monotonic())

    def set_positions(self, positions: PositionSource) -> None:
        """Use another source; frames that wait for a position are looked up there."""
        with self._flowing():
            self._flow.set_positions(positions, time.monotonic())

    def start_scan(self, scan: str, anew: bool = False) -> None:
        """Begin a scan, with a canvas of its own; the running one ends. Do nothing where it runs already.

        Needed only where frames do not name their scan, or where a name comes twice.

        Parameters
        ----------
        anew
            Begin even where a scan of that name goes on: it was aborted and restarted.
        """
        with self._flowing():
            self._flow.start_scan(scan, time.monotonic(), anew, time.time())
            self._ends.name_canvas()

    def end_scan(self, scan: str) -> Future[int]:
        """End a scan: infer at once the frames that wait, drop those without a position.

        Frames that still come, because the end was announced before them, are stitched too; they are
        late once another scan has begun.

        Returns
        -------
        Future
            The number of patches on the canvas, when the scan's last frame is stitched or dropped.
        """
        with self._flowing():
            self._flow.end_scan(scan, time.monotonic(), time.time())
            return self._ends.wait_for(scan)

    def tick(self) -> str | None:
        """Time has passed: the id of the scan that a pause in the stream has ended, if it has."""
        with self._flowing():
            return self._flow.scan if self._flow.tick(time.monotonic()) else None

    def keep_canvases(self, number: int) -> None:
        """Keep so many finished canvases from now on."""
        with self._wake:
            self._flow.runs.keep = number
            self._trim()

    def reset(self) -> None:
        """Empty the canvas; the batch in flight may still go to the old one."""
        self._mosaic.reset()
        self.times.reset()
        with self._wake:
            self._figures.canvases = self._mosaic.figures()

    def reset_counters(self) -> None:
        """Count from zero; frames under way count as received."""
        with self._wake:
            self._flow.restart_counters()
            self._figures.message = ""
        self.times.restart_counters()

    def configure(self, **changes: object) -> PipelineSettings:
        """Change settings by name (`batch`, `max_latency_s`, `queue_size`, `when_full`, `decimation` …) while it runs.

        Returns
        -------
        PipelineSettings
            Those in force.

        Raises
        ------
        pydantic.ValidationError
            A value is out of range; nothing is changed.
        """
        with self._flowing():
            values = self._settings.model_dump()
            for name, value in changes.items():
                values[name] = {**values[name], **value} if isinstance(value, dict) else value
            self._settings = type(self._settings).model_validate(values)
            self._apply_settings()
            return self._settings

    def expect_engine(self, comes: bool) -> None:
        """Whether the first engine is on its way: frames then wait for it in the queue, and are not dropped."""
        with self._wake:
            self._first_engine_comes = comes
            self._wake.notify()

    def swap_engine(self, factory: EngineFactory, contract: ModelContract, thread_bound: bool = False) -> Future[str]:
        """Build an engine, try it, then change to it between two batches; the canvas goes on.

        Parameters
        ----------
        factory
            Creates the engine and checks it, in another thread, while the running engine goes on. What it
            raises, or the engine on a first batch, ends in the future, and the running engine stays.
        contract
            Of the engine's model. Where its object pixel is not the canvas's, a new canvas begins.
        thread_bound
            Do all that in the inference thread, for an engine that lives in one thread (CUDA contexts); frames
            queue meanwhile.

        Returns
        -------
        Future
            The engine's name, when it has taken over and the old one is closed. It can be cancelled until then.
        """
        return self._swaps.request(factory, contract, thread_bound)

    # What goes out

    def snapshot(self) -> Snapshot:
        """Every figure at one moment; reading them changes nothing."""
        with self._wake:
            trained = self._inference.contract.mean_counts if self._inference else None
            return self._figures.snapshot(
                self._flow,
                self._settings,
                self._inference,
                self.times.stitched_ms(),
                self.scan_dose.newest_scale(trained, self.dose_scale),
                self._taken,
                time.monotonic(),
            )

    def stitched(self, run: int | None = None) -> Stitched | None:
        """The live canvas, or a kept run's, as an image; None where there is none."""
        canvas = self._mosaic.canvas(run)
        return canvas.stitched() if canvas is not None else None

    def canvas(self, run: int | None = None) -> RunCanvas | None:
        """The live canvas, or a kept run's; None where there is none. A reference keeps its memory in use."""
        return self._mosaic.canvas(run)

    # Under the lock

    @contextmanager
    def _flowing(self) -> Iterator[None]:
        """Hold the lock for a change of the flow, then wake the inference thread where there is reason to."""
        with self._wake:
            was_idle = self._flow.batcher.waiting == 0
            yield
            if self._flow.batcher.ready or was_idle or self._stopping:
                self._wake.notify()
            through = self._ends.through()
        for tell in through:
            tell()

    def _trim(self) -> None:
        self._ends.trim()
        self._figures.canvases = self._mosaic.figures()

    def _notify(self) -> None:
        with self._wake:
            self._wake.notify()

    def _apply_settings(self) -> None:
        batcher, settings = self._flow.batcher, self._settings
        batcher.max_latency_s, batcher.capacity = settings.max_latency_s, settings.queue_size
        batcher.drop_oldest = settings.when_full == "drop_oldest"
        self._flow.limit_bytes(settings.waiting_bytes)
        self._flow.decimator.settings = settings.decimation
        self._flow.position_wait_s = settings.position_wait_s
        self._mosaic.want_spread(settings.sigma)
        most = self._inference.engine.batch if self._inference else settings.batch
        batcher.batch = min(settings.batch, most)
        batcher.at_once = min(frames_at_once(batcher.batch, settings.backlog_batches), most)

    # In the inference thread

    def _run(self) -> None:
        while True:
            with self._wake:
                while not self._swaps:  # a swap comes first: a queue that never empties must not keep it out
                    waits = self._first_engine_comes and self._inference is None and not self._stopping
                    if not waits:
                        self._taken = time.monotonic()
                        self._flow.take(self._taken)
                    if self._flow.in_flight or self._stopping:
                        break
                    self._wake.wait(None if waits else self._flow.batcher.due(time.monotonic()))
                batch = self._flow.in_flight
            if batch:
                self._infer(batch)
            elif (swap := self._swaps.take()) is not None:
                self._install(swap)
            else:
                break
        if self._inference is not None:
            close_engine(self._inference.engine)

    def _infer(self, batch: list[PlacedFrame]) -> None:
        lost: list[tuple[DropCause, str]] = []
        run = batch[0].frame.run
        laid, times, mean_counts = Laid(), None, float("nan")
        try:
            self._mosaic.begin(run, batch[0].frame.scan)
            if self._inference is None:
                lost = [(DropCause.NO_MODEL, "frames come and no model is loaded")] * len(batch)
            else:
                trained = self._inference.contract.mean_counts
                choose = partial(self.scan_dose.choose, run, trained, self.dose_scale)
                measured = self._settings.measured
                self._screen.settings, self._inference.saturation = measured, measured.saturation
                patches = self._inference.run(batch, choose, partial(self._limits, run, trained))
                mean_counts = patches.mean_counts
                if patches.placed:
                    self.on_patches(self._inference.contract, patches)
                    laid = self._mosaic.add(patches, run, patches.dose_scale)
                lost = patches.misfits + laid.refused
                times = BatchTimes(self._taken, patches.prepared, patches.inferred, time.monotonic())
                self._failures = 0
        except Exception as error:  # noqa: BLE001 - an engine is foreign code; what it raises costs its batch alone
            self._failures += 1
            if self._failures.bit_count() == 1:  # the 1st, 2nd, 4th … in a row: a log must not fill the disk
                _log.exception("batch of %d frames failed, the %d. in a row", len(batch), self._failures)
            lost = [(DropCause.ENGINE, f"the engine failed: {error}")] * len(batch)
        with self._wake:
            now = time.monotonic()
            execution_s = now - self._taken
            self._flow.land(len(laid.stitched), [cause for cause, _ in lost])
            self._flow.decimator.note(len(batch), execution_s)
            self._figures.note_batch(len(laid.stitched), mean_counts, execution_s, now)
            self.times.begin(run)
            if times is not None:
                self.times.note(laid.stitched, times)
            if lost:
                self._figures.message = lost[-1][1]
            through = self._ends.through()
            self._trim()
        for tell in through:
            tell()

    def _limits(self, run: int, trained: float | None, sums: Sequence[float]) -> FrameLimits:
        """What a frame's counts must lie between, for a model that was trained at `trained` counts a frame."""
        scale = 1.0 if self.scan_dose.automatic else self.dose_scale
        return self._screen.limits(run, sums, trained / scale if trained else None)

    def _install(self, swap: Swap) -> None:
        inference: Inference | None = None
        try:
            inference = swap.prepare()
            message = self._mosaic.adopt(inference.contract, describe(inference.engine))
        except Exception as error:  # noqa: BLE001 - the caller gets the error, and the running engine goes on
            if inference is not None:
                close_engine(inference.engine)
            swap.done.set_exception(error)
            return
        old = self._inference
        with self._wake:
            self._inference = inference
            self._apply_settings()
            self._figures.canvases = self._mosaic.figures()
            self._figures.message = message
        self.on_contract(inference.contract)
        if old is not None:
            close_engine(old.engine)
        swap.done.set_result(inference.engine.name)
