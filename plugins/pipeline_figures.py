"""The figures of a pipeline: those that the frames' flow does not count, and the snapshot made of both."""

from __future__ import annotations

from ptychostream.plugins.flow.frame_flow import FrameFlow
from ptychostream.plugins.flow.snapshot import Snapshot
from ptychostream.plugins.inference import Inference
from ptychostream.plugins.latency import RateMeter
from ptychostream.plugins.mosaic import CanvasFigures
from ptychostream.plugins.pipeline_settings import PipelineSettings

_FULL_SHOWS_S = 1.0
_TROUBLE_S = 5.0
_MIB = 1 << 20


class PipelineFigures:
    """Counts events and keeps the last batch's figures. The pipeline calls it under its lock.

    Attributes
    ----------
    canvases
        As of the last batch, so that a snapshot shows the ledger and the canvas in step.
    message
        The last thing that went wrong; forgotten when frames have been stitched for 5 s after it.
    """

    def __init__(self) -> None:
        self.canvases = CanvasFigures()
        self._message = ""
        self._well_since: float | None = None  # when the first batch after the message was stitched
        self._received_rate, self._stitched_rate = RateMeter(), RateMeter()
        self._execution_s = float("nan")
        self._batches = 0
        self._mean_counts = float("nan")

    @property
    def message(self) -> str:
        return self._message

    @message.setter
    def message(self, text: str) -> None:
        self._message, self._well_since = text, None

    def note_received(self, frames: int, now: float) -> None:
        """Count frames that came, good or bad; `now` in monotonic seconds, as below."""
        self._received_rate.note(frames, now)

    def note_batch(self, stitched: int, mean_counts: float, execution_s: float, now: float) -> None:
        """Count a batch that has been through the engine, or has failed there."""
        self._stitched_rate.note(stitched, now)
        if self._message and stitched:
            self._well_since = now if self._well_since is None else self._well_since
            if now - self._well_since > _TROUBLE_S:
                self.message = ""
        self._batches += 1
        self._mean_counts, self._execution_s = mean_counts, execution_s

    def snapshot(
        self,
        flow: FrameFlow,
        settings: PipelineSettings,
        inference: Inference | None,
        latency_ms: tuple[float, float, float],
        dose_scale: float,
        taken: float,
        now: float,
    ) -> Snapshot:
        """Every figure at `now`; the batch in flight was taken at `taken`."""
        ledger, current = flow.ledger, flow.runs.current
        newest = inference.newest if inference else None
        return Snapshot(
            received=ledger.received,
            stitched=ledger.stitched,
            pending=flow.pending,
            dropped=dict(ledger.dropped),
            law_holds=flow.holds,
            missed=flow.missed,
            disordered=flow.disordered,
            equal_times=flow.equal_times,
            waiting_position=flow.waiting_position,
            queue_used=flow.batcher.waiting,
            queue_size=settings.queue_size,
            queue_memory=settings.memory_bytes / _MIB,
            queue_memory_used=flow.waiting_bytes / _MIB,
            in_flight=len(flow.in_flight),
            scan=flow.scan or "",
            scan_active=flow.scan_active,
            scan_stitched=self.canvases.patches if current and current.number == self.canvases.run else 0,
            runs=flow.runs.figures(),
            late_taken=flow.late_taken,
            keep=flow.runs.keep,
            kept_bytes=self.canvases.finished_bytes,
            received_hz=self._received_rate.rate(now),
            stitched_hz=self._stitched_rate.rate(now),
            latency_ms=latency_ms,
            execution_ms=1e3 * self._execution_s,
            batches=self._batches,
            engine=inference.engine.name if inference else "",
            model=inference.contract.name if inference else "",
            mean_counts=self._mean_counts,
            dose_scale=dose_scale,
            bad_pixels=newest.bad_pixels if newest else 0,
            mark_pixels=newest.marks if newest else 0,
            saturation_proposed=newest.proposed if newest else 0,
            patch=self.canvases.latest,
            message=self.message,
            queue_full=now - flow.batcher.full_at < _FULL_SHOWS_S,
            when_full=settings.when_full,
            decimation_factor=flow.decimator.factor,
            busy_s=now - taken if flow.in_flight else 0.0,
        )
