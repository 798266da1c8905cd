"""What a put does: one method for each `info(python:put, "name")` of the templates.

A method that raises leaves its readback as it was; the dispatcher shows why. Each put's readbacks are up to date when
its callback completes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptychostream.errors import ConfigError
from ptychostream.ioc.agent_desk import AgentDesk
from ptychostream.ioc.model.canary_rollback import Judgement, Rollback
from ptychostream.ioc.images.canvas_saver import CanvasSaver
from ptychostream.ioc.collector.collector_slot import ClusterSlot
from ptychostream.ioc.collector.collector_stream import CollectorStream
from ptychostream.ioc.images.comparison import Comparison
from ptychostream.ioc.images.images import ImageServer
from ptychostream.ioc.model.model_slot import ModelSlot
from ptychostream.ioc.records.records import Value
from ptychostream.ioc.scan.position_sources import PositionSources
from ptychostream.ioc.config.setpoints import CLOCK_MODES, DROP_POLICIES
from ptychostream.ioc.config.settings import ENGINES, POSITION_SOURCES, PRECISIONS
from ptychostream.ioc.images.shown_canvas import ShownCanvas
from ptychostream.ioc.scan.stream import Stream
from ptychostream.plugins.flow.decimator import MODES as DECIMATION
from ptychostream.plugins.frame_source import FrameSource


@dataclass
class Operating:
    """Values that operators set and that no other part holds."""

    dose_scale: float = 1.0
    dose_mode: int = 0
    scan_frames: int = 0
    counter_offset: int = 0
    model_file: str = ""
    max_latency_ms: float = 0.0


@dataclass
class Parts:
    """What the handlers act on."""

    pipeline: FrameSource
    stream: Stream | CollectorStream
    slot: ModelSlot | ClusterSlot
    images: ImageServer
    positions: PositionSources
    comparison: Comparison
    operating: Operating
    shown: ShownCanvas
    saver: CanvasSaver
    agent: AgentDesk
    rollback: Rollback
    cluster_values: Callable[[], dict[str, Value]]
    """The records of a cluster; none without one."""


class Handlers:
    """The handlers.

    Parameters
    ----------
    parts
        What they act on.
    refresh
        Brings the readbacks up to date.
    end_scan
        Ends a scan and waits for its last frame.
    reset_command
        Puts a command record back to 0, by name.
    read
        Gives a record's value, by name.
    """

    def __init__(
        self,
        parts: Parts,
        refresh: Callable[[], None],
        end_scan: Callable[[], None],
        reset_command: Callable[[str], None],
        read: Callable[[str], Any],
    ) -> None:
        self._read = read
        self._parts = parts
        self._refresh = refresh
        self._end_scan = end_scan
        self._reset_command = reset_command

    # The plugin

    def enable_callbacks(self, value: int) -> None:
        self._parts.stream.subscribe(enabled=bool(value))
        self._refresh()

    def input_pva_name(self, value: str) -> None:
        self._parts.stream.subscribe(channel=value)
        self._refresh()

    def array_counter(self, value: int) -> None:
        self._parts.operating.counter_offset = int(value) - self._parts.pipeline.snapshot().received
        self._refresh()

    def reset_counters(self, value: int) -> None:
        def reset() -> None:
            self._parts.pipeline.reset_counters()
            self._parts.positions.restart_counts()
            self._parts.operating.counter_offset = 0

        self._command("ResetCounters", value, reset)

    def queue_size(self, value: int) -> None:
        self._parts.pipeline.configure(queue_size=int(value))
        self._refresh()

    def drop_policy(self, value: int) -> None:
        self._parts.pipeline.configure(when_full=_choice(DROP_POLICIES, value, "DropPolicy"))
        self._refresh()

    def decimation(self, value: int) -> None:
        self._parts.pipeline.configure(decimation={"mode": _choice(DECIMATION, value, "Decimation")})
        self._refresh()

    def decimation_factor(self, value: int) -> None:
        self._parts.pipeline.configure(decimation={"factor": int(value)})
        self._refresh()

    def max_latency(self, value: float) -> None:
        self._parts.pipeline.configure(max_latency_s=float(value) / 1e3)
        self._parts.operating.max_latency_ms = float(value)
        self._refresh()

    def batch_size(self, value: int) -> None:
        self._parts.slot.use_engine(batch=int(value))
        self._parts.pipeline.configure(batch=int(value))
        self._refresh()

    # The model

    def model_file(self, value: str) -> None:
        """Names the file for LoadModel; nothing else happens until then."""
        self._parts.operating.model_file = value.strip()

    def load_model(self, value: int) -> None:
        self._command("LoadModel", value, lambda: self._parts.slot.load(self._parts.operating.model_file))

    def rollback_model(self, value: int) -> None:
        self._command("RollbackModel", value, self._parts.rollback.by_operator)

    def engine(self, value: int) -> None:
        self._parts.slot.use_engine(name=_choice(ENGINES, value, "Engine"))
        self._refresh()

    def precision(self, value: int) -> None:
        self._parts.slot.use_engine(precision=_choice(PRECISIONS, value, "Precision"))
        self._refresh()

    # Canary, rollback and the agent

    def canary_limit(self, value: float) -> None:
        self._parts.slot.canary.limit = float(value)
        self._refresh()

    def rollback_tolerance(self, value: float) -> None:
        self._parts.rollback.tolerance = float(value)
        self._refresh()

    def acknowledge_rollback(self, value: int) -> None:
        self._command("AcknowledgeRollback", value, self._parts.rollback.acknowledge)

    def agent_judged(self, value: str) -> None:
        figures = (float(self._read(f"Agent:{name}")) for name in ("SSIM", "SSIMPrevious"))
        self._parts.rollback.judged(Judgement(value.strip(), str(self._read("Agent:JudgedPreviousSHA")), *figures))

    def agent_lease(self, value: str) -> None:
        self._parts.agent.lease(value)

    def agent_reconstruct(self, value: int) -> None:
        self._command("Agent:Reconstruct", value, lambda: self._parts.agent.command("reconstruct"))

    def agent_retrain(self, value: int) -> None:
        self._command("Agent:Retrain", value, lambda: self._parts.agent.command("retrain"))

    def agent_reconstruct_done(self, value: int) -> None:
        self._parts.agent.finish("reconstruct", int(value))

    def agent_retrain_done(self, value: int) -> None:
        self._parts.agent.finish("retrain", int(value))

    # Quality and dose

    def ssim_reference(self, value: str) -> None:
        self._parts.comparison.reference = value.strip()
        self._refresh()

    def compare_ssim(self, value: int) -> None:
        self._command("CompareSSIM", value, self._parts.comparison.run)

    def ssim_tolerance(self, value: float) -> None:
        self._parts.comparison.tolerance = float(value)
        self._refresh()

    def dose_scale(self, value: float) -> None:
        if not value > 0:
            raise ConfigError(f"dose scale {value}", where="DoseScale", remedy="give a positive number")
        self._parts.operating.dose_scale = self._parts.pipeline.dose_scale = float(value)
        self._refresh()

    def dose_mode(self, value: int) -> None:
        self._parts.operating.dose_mode = int(value)
        self._parts.pipeline.scan_dose.automatic = bool(value)
        self._parts.pipeline.dose_scale = self._parts.operating.dose_scale
        self._refresh()

    # Scan and positions

    def scan_frames(self, value: int) -> None:
        self._parts.operating.scan_frames = int(value)
        self._refresh()

    def end_scan(self, value: int) -> None:
        self._command("EndScan", value, self._end_scan)

    def reset_stitch(self, value: int) -> None:
        def reset() -> None:
            snapshot = self._parts.pipeline.snapshot()
            if snapshot.scan and not snapshot.scan_active:
                self._parts.pipeline.start_scan(snapshot.scan)  # a scan of that name may come again
            self._parts.pipeline.reset()
            self._parts.images.serve()

        self._command("ResetStitch", value, reset)

    def start_scan(self, value: int) -> None:
        def start() -> None:
            scan, stream = self._parts.pipeline.snapshot().scan, self._parts.stream
            self._parts.pipeline.start_scan(scan if stream.names(scan) else stream.begin_scan(), anew=True)

        self._command("StartScan", value, start)

    def position_source(self, value: int) -> None:
        self._parts.positions.select(_choice(POSITION_SOURCES, value, "PositionSource"))
        self._refresh()

    def x_attribute(self, value: str) -> None:
        self._attributes(x=value.strip())

    def y_attribute(self, value: str) -> None:
        self._attributes(y=value.strip())

    def route_file(self, value: str) -> None:
        self._parts.positions.set_route(value.strip())
        self._refresh()

    def positions_x(self, value: NDArray[np.float64]) -> None:
        self._parts.positions.write(x=np.array(value))
        self._refresh()

    def positions_y(self, value: NDArray[np.float64]) -> None:
        self._parts.positions.write(y=np.array(value))
        self._refresh()

    def positions_complete(self, value: int) -> None:
        if value:
            self._parts.positions.complete()
        self._refresh()

    def position_pva_name(self, value: str) -> None:
        self._parts.positions.feed.subscribe(channel=value)
        self._refresh()

    def position_tolerance(self, value: float) -> None:
        self._parts.positions.set_stream(tolerance_s=float(value) / 1e3)
        self._refresh()

    def clock_offset_mode(self, value: int) -> None:
        self._parts.positions.set_stream(clock_offset_mode=_choice(CLOCK_MODES, value, "ClockOffsetMode"))
        self._refresh()

    def clock_offset(self, value: float) -> None:
        self._parts.positions.set_stream(clock_offset_s=float(value))
        self._refresh()

    def max_speed(self, value: float) -> None:
        self._parts.positions.set_stream(max_speed_m_s=float(value) * 1e-6)
        self._refresh()

    def settle_time(self, value: float) -> None:
        self._parts.positions.set_gate(settling_s=float(value))
        self._refresh()

    def field_width(self, value: float) -> None:
        self._parts.positions.set_gate(field_width_m=float(value) * 1e-6)
        self._refresh()

    def field_height(self, value: float) -> None:
        self._parts.positions.set_gate(field_height_m=float(value) * 1e-6)
        self._refresh()

    def field_x(self, value: float) -> None:
        self._parts.positions.set_gate(field_x_m=float(value) * 1e-6)
        self._refresh()

    def field_y(self, value: float) -> None:
        self._parts.positions.set_gate(field_y_m=float(value) * 1e-6)
        self._refresh()

    # Finished canvases

    def keep_canvases(self, value: int) -> None:
        self._parts.pipeline.keep_canvases(int(value))
        self._refresh()

    def show_scan(self, value: int) -> None:
        self._parts.shown.wish = int(value)
        self._parts.images.serve(again=True)
        self._refresh()

    def save_canvas(self, value: int) -> None:
        self._command("SaveCanvas", value, lambda: self._parts.saver.save(self._parts.shown.canvas()))

    def save_directory(self, value: str) -> None:
        self._parts.saver.directory = value.strip()
        self._refresh()

    def auto_save_canvas(self, value: int) -> None:
        self._parts.saver.automatic = bool(value)
        self._refresh()

    # The images

    def phase_rate(self, value: float) -> None:
        self._parts.images.rate_hz = float(value)
        self._refresh()

    def _attributes(self, x: str | None = None, y: str | None = None) -> None:
        self._parts.positions.set_attributes(x, y)
        self._parts.stream.subscribe(attributes=self._parts.positions.attributes)
        self._refresh()

    def _command(self, name: str, value: int, action: Callable[[], Any]) -> None:
        """Run `action` on a put of anything but 0; the record is back at 0 when the put completes."""
        if not value:
            return
        try:
            action()
        finally:
            self._refresh()
            self._reset_command(name)


def _choice(choices: tuple[str, ...], index: int, name: str) -> str:
    if not 0 <= index < len(choices):
        raise ConfigError(f"state {index}", where=name, remedy=f"choose one of {', '.join(choices)}")
    return choices[index]
