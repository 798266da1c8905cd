"""From received frames to the canvas: join, batch, infer, stitch, and the accounting of every frame.

One lock guards the frames' flow; it is never held while a frame is decoded, inferred or stitched. One
thread owns the engine. Every frame that `submit` or `reject` takes is at every moment in exactly one
place: stitched, pending, or dropped under a cause.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Literal

from pydantic import Field

from ptychostream.config import Settings
from ptychostream.contract import ModelContract
from ptychostream.errors import FrameError
from ptychostream.frames import DropCause, Frame, PlacedFrame
from ptychostream.plugins.batcher import Batcher
from ptychostream.plugins.frame_flow import FrameFlow
from ptychostream.plugins.inference import Inference
from ptychostream.plugins.latency import RateMeter
from ptychostream.plugins.mosaic import Mosaic
from ptychostream.plugins.snapshot import Snapshot, Stitched
from ptychostream.plugins.swap import EngineFactory, Swap, SwapQueue, close_engine
from ptychostream.positions import PositionSource

_log = logging.getLogger(__name__)


class PipelineSettings(Settings):
    """Configuration of the pipeline."""

    batch: int = Field(8, ge=1, le=1024)
    """Frames in a full batch; the engine's own batch bounds it."""
    max_latency_s: float = Field(0.05, ge=0)
    """How long a frame may wait for its batch to fill."""
    queue_size: int = Field(2000, ge=1)
    """Placed frames that may wait for the engine."""
    when_full: Literal["drop_newest", "drop_oldest"] = "drop_newest"
    """Which frame gives way when they are more."""
    join_size: int = Field(4000, ge=1)
    """Frames that may wait for their position."""
    max_canvas_pixels: int = Field(64_000_000, ge=1)


class Pipeline:
    """Takes frames in from any thread and stitches them in its own.

    Parameters
    ----------
    settings
        See `PipelineSettings`.
    positions
        Where positions come from; every call to it is made under the pipeline's lock.
    """

    def __init__(self, settings: PipelineSettings, positions: PositionSource) -> None:
        self.dose_scale = 1.0
        """Factor by which the model is told that its counts were scaled."""
        self._wake = threading.Condition(threading.Lock())
        self._thread = threading.Thread(target=self._run, name="inference", daemon=True)
        self._swaps = SwapQueue(self._notify)
        self._mosaic = Mosaic(settings.max_canvas_pixels)
        self._inference: Inference | None = None  # set by the inference thread alone
        # The rest is guarded by the lock of `_wake`.
        self._settings = settings
        self._stopping = False
        drop_oldest = settings.when_full == "drop_oldest"
        batcher = Batcher(settings.batch, settings.max_latency_s, settings.queue_size, drop_oldest)
        self._flow = FrameFlow(positions, settings.join_size, batcher)
        self._drains: list[tuple[int, Future[int]]] = []  # the batcher's `left` at which each is done
        self._received_rate, self._stitched_rate = RateMeter(), RateMeter()
        self._execution_s = 0.0
        self._batches = 0
        self._mean_counts = float("nan")
        self._message = ""

    def start(self) -> None:
        """Start the inference thread."""
        self._thread.start()

    def stop(self, timeout_s: float = 30.0) -> bool:
        """Take no more frames, infer what waits, close the engine.

        Returns
        -------
        bool
            False when the engine did not come back within `timeout_s`; what is in flight stays pending.
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
        with self._flowing():
            self._flow.submit(frame, time.monotonic())

    def reject(self, error: FrameError) -> None:
        """Count a frame that could not be read, under the error's cause."""
        assert isinstance(error.cause, DropCause)
        with self._wake:
            self._flow.reject(error.cause)
            self._message = str(error)

    def update_positions(self, update: Callable[[], None]) -> None:
        """Run `update`, which changes the position source, and place the frames that waited for it."""
        with self._flowing():
            update()
            self._flow.poll(time.monotonic())

    def set_positions(self, positions: PositionSource) -> None:
        """Use another source; frames that wait for a position are looked up there."""
        with self._flowing():
            self._flow.set_positions(positions, time.monotonic())

    def start_scan(self, scan: str) -> None:
        """A scan begins, with a canvas of its own; the running one ends. Nothing happens where it runs already.

        Needed only where frames do not name their scan, or where a name comes twice.
        """
        with self._flowing():
            self._flow.start_scan(scan, time.monotonic())

    def end_scan(self, scan: str) -> Future[int]:
        """A scan is over: infer what waits at once, drop what has no position.

        Its frames that come after all, because the word of the end overtook them, are stitched too; they are
        late once another scan has begun.

        Returns
        -------
        Future
            The number of patches on the canvas, when the scan's last frame is stitched or dropped.
        """
        done: Future[int] = Future()
        done.set_running_or_notify_cancel()
        with self._flowing():
            self._flow.end_scan(scan, time.monotonic())
            self._drains.append((self._flow.batcher.entered, done))
            drained = self._drained()
        self._resolve(drained)
        return done

    def reset(self) -> None:
        """Empty the canvas; the batch in flight may still go to the old one."""
        self._mosaic.reset()

    def reset_counters(self) -> None:
        """Count from zero; what is under way counts as received."""
        with self._wake:
            self._flow.restart_counters()
            self._message = ""

    def configure(
        self, *, batch: int | None = None, max_latency_s: float | None = None, queue_size: int | None = None
    ) -> PipelineSettings:
        """Change what is given, while it runs; returns the settings in force.

        Raises
        ------
        pydantic.ValidationError
            A value is out of range; nothing is changed.
        """
        given = {"batch": batch, "max_latency_s": max_latency_s, "queue_size": queue_size}
        changes = {key: value for key, value in given.items() if value is not None}
        with self._flowing():
            self._settings = PipelineSettings.model_validate({**self._settings.model_dump(), **changes})
            self._flow.batcher.max_latency_s = self._settings.max_latency_s
            self._flow.batcher.capacity = self._settings.queue_size
            self._flow.batcher.batch = self._batch_size()
            return self._settings

    def swap_engine(self, factory: EngineFactory, contract: ModelContract, thread_bound: bool = False) -> Future[str]:
        """Build an engine, try it, then change to it between two batches; the canvas goes on.

        Parameters
        ----------
        factory
            Creates the engine and checks it. It is called aside, while the running engine goes on. What it
            raises, or the engine on a first batch, ends in the future, and the running engine stays.
        contract
            Of the engine's model. Where its object pixel is not the canvas's, a new canvas begins.
        thread_bound
            Do all that in the inference thread, for an engine that lives in one thread (CUDA contexts); frames
            queue meanwhile.

        Returns
        -------
        Future
            The engine's name, when it has taken over and the old one is closed.
        """
        return self._swaps.request(factory, contract, thread_bound)

    # What goes out

    def snapshot(self) -> Snapshot:
        """Every figure at one moment."""
        latency_ms, latest, scan_stitched = self._mosaic.latency_ms(), self._mosaic.latest, self._mosaic.patches
        with self._wake:
            flow, ledger, inference = self._flow, self._flow.ledger, self._inference
            now = time.monotonic()
            return Snapshot(
                received=ledger.received,
                stitched=ledger.stitched,
                pending=flow.pending,
                dropped=dict(ledger.dropped),
                law_holds=flow.holds,
                missed=flow.missed,
                disordered=flow.disordered,
                waiting_position=flow.waiting_position,
                queue_used=flow.batcher.waiting,
                queue_size=self._settings.queue_size,
                in_flight=len(flow.in_flight),
                scan=flow.scan or "",
                scan_active=flow.scan_active,
                scan_stitched=scan_stitched,
                received_hz=self._received_rate.update(ledger.received, now),
                stitched_hz=self._stitched_rate.update(ledger.stitched, now),
                latency_ms=latency_ms,
                execution_ms=1e3 * self._execution_s,
                batches=self._batches,
                engine=inference.engine.name if inference else "",
                model=inference.contract.name if inference else "",
                mean_counts=self._mean_counts,
                dose_scale=self.dose_scale,
                patch=latest,
                message=self._message,
            )

    def stitched(self) -> Stitched | None:
        """The canvas as an image; None before there is a model."""
        return self._mosaic.stitched(self.dose_scale)

    # Under the lock

    @contextmanager
    def _flowing(self) -> Iterator[None]:
        """Hold the lock for a change of the flow, then wake the inference thread where there is reason to."""
        with self._wake:
            was_idle = self._flow.batcher.waiting == 0
            yield
            if self._flow.batcher.ready or was_idle or self._stopping:
                self._wake.notify()

    def _notify(self) -> None:
        with self._wake:
            self._wake.notify()

    def _batch_size(self) -> int:
        inference = self._inference
        return min(self._settings.batch, inference.engine.batch) if inference else self._settings.batch

    def _drained(self) -> list[Future[int]]:
        """The drains whose last frame is through; to be resolved without the lock."""
        if self._flow.in_flight:
            return []
        left = self._flow.batcher.left
        through = [done for target, done in self._drains if target <= left]
        self._drains = [drain for drain in self._drains if drain[0] > left]
        return through

    # In the inference thread

    def _run(self) -> None:
        while True:
            with self._wake:
                anew = False
                while not self._swaps:  # a swap comes first: a queue that never empties must not keep it out
                    anew = self._flow.take(time.monotonic())
                    if self._flow.in_flight or self._stopping:
                        break
                    self._wake.wait(self._flow.batcher.due(time.monotonic()))
                batch = self._flow.in_flight
            if batch:
                self._infer(batch, anew)
            elif (swap := self._swaps.take()) is not None:
                self._install(swap)
            else:
                break
        if self._inference is not None:
            close_engine(self._inference.engine)

    def _infer(self, batch: list[PlacedFrame], anew: bool) -> None:
        began = time.perf_counter()
        lost: list[tuple[DropCause, str]] = []
        stitched, mean_counts = 0, float("nan")
        try:
            if anew:
                self._mosaic.begin(batch[0].frame.scan)
            if self._inference is None:
                lost = [(DropCause.NO_MODEL, "frames come and no model is loaded")] * len(batch)
            else:
                patches = self._inference.run(batch, self.dose_scale)
                mean_counts = patches.mean_counts
                laid = self._mosaic.add(patches, time.time())
                lost = patches.misfits + laid.refused
                stitched = len(laid.stitched)
        except Exception as error:  # noqa: BLE001 - an engine is foreign code; what it raises costs its batch alone
            _log.exception("batch of %d frames failed", len(batch))
            lost = [(DropCause.ENGINE, f"the engine failed: {error}")] * len(batch)
        with self._wake:
            self._flow.land(stitched, [cause for cause, _ in lost])
            if lost:
                self._message = lost[-1][1]
            self._batches += 1
            self._execution_s = time.perf_counter() - began
            self._mean_counts = mean_counts
            drained = self._drained()
        self._resolve(drained)

    def _resolve(self, drained: list[Future[int]]) -> None:
        for done in drained:
            done.set_result(self._mosaic.patches)

    def _install(self, swap: Swap) -> None:
        inference: Inference | None = None
        try:
            inference = swap.prepare()
            message = self._mosaic.adopt(inference.contract)
        except Exception as error:  # noqa: BLE001 - whoever asked is told, and the running engine goes on
            if inference is not None:
                close_engine(inference.engine)
            swap.done.set_exception(error)
            return
        old = self._inference
        with self._wake:
            self._inference = inference
            self._flow.batcher.batch = self._batch_size()
            self._message = message
        if old is not None:
            close_engine(old.engine)
        swap.done.set_result(inference.engine.name)
