"""What a put does: `info(python:put, "name")` of a template names a setpoint or a method of `Handlers`.

A put that is refused leaves the settings in force, and with them the readbacks, as they were; the dispatcher shows why.
The readbacks are up to date when the put's callback completes.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptychostream.config import changed
from ptychostream.errors import ConfigError
from ptychostream.ioc.attached_agent import AttachedAgent
from ptychostream.ioc.model.verdicts import Verdicts
from ptychostream.ioc.model.canary_rollback import Judgement, Rollback
from ptychostream.ioc.images.canvas_saver import CanvasSaver
from ptychostream.ioc.collector.collector import Collector
from ptychostream.ioc.collector.collector_slot import ClusterSlot
from ptychostream.ioc.collector.collector_stream import CollectorStream
from ptychostream.ioc.images.comparison import Comparison
from ptychostream.ioc.images.images import ImageServer
from ptychostream.ioc.images.refined_images import RefinedImages
from ptychostream.ioc.model.model_slot import ModelSlot
from ptychostream.ioc.scan.position_sources import PositionSources
from ptychostream.ioc.config.setpoints import Setpoint, setpoints
from ptychostream.ioc.config.settings import IocSettings
from ptychostream.ioc.images.shown_canvas import ShownCanvas
from ptychostream.ioc.scan.stream import Stream
from ptychostream.plugins.frame_source import FrameSource
from ptychostream.plugins.refining.live import LiveRefinement
from ptychostream.storage.roots import folders_of, inside


@dataclass
class Parts:
    """What the handlers act on.

    Attributes
    ----------
    settings
        The settings in force.
    collector
        The frame source of a cluster; None without one.
    typed
        Paths as they were put, by record: a client that sets one and waits for its readback gets it back as it was.
    counter_offset
        What the array counter was set to, less the frames received then.
    """

    settings: IocSettings
    pipeline: FrameSource
    stream: Stream | CollectorStream
    slot: ModelSlot | ClusterSlot
    images: ImageServer
    positions: PositionSources
    comparison: Comparison
    shown: ShownCanvas
    saver: CanvasSaver
    agent: AttachedAgent
    rollback: Rollback
    verdicts: Verdicts
    refinement: LiveRefinement
    refined: RefinedImages
    collector: Collector | None = None
    counter_offset: int = 0
    typed: dict[str, str] = field(default_factory=dict)


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
    begin_command, reset_command
        Show 1 in a command record, by name, and put it back to 0.
    read
        Gives a record's value, by name.
    restore
        Puts a record that still holds a refused value back: name, refused value, value.
    """

    def __init__(
        self,
        parts: Parts,
        refresh: Callable[[], None],
        end_scan: Callable[[], None],
        begin_command: Callable[[str], None],
        reset_command: Callable[[str], None],
        read: Callable[[str], Any],
        restore: Callable[[str, Any, Any], None],
    ) -> None:
        self._restore = restore
        self._read = read
        self._parts = parts
        self._refresh = refresh
        self._end_scan = end_scan
        self._begin_command = begin_command
        self._reset_command = reset_command
        self._changing = threading.Lock()
        self._setpoints = setpoints(type(parts.settings))
        settings = parts.settings
        named = (
            settings.model.file,
            settings.model.directory,
            settings.positions.route_file,
            settings.save.directory,
            settings.ssim_reference,
            settings.refine.probe_file,
        )
        self._roots = settings.access.roots or folders_of(named)

    def of(self, record: str, name: str) -> Callable[[Any], None]:
        """The handler `name` of a record.

        Raises
        ------
        ConfigError
            There is none.
        """
        if record in self._setpoints:
            return partial(self.change, self._setpoints[record])
        handler: Callable[[Any], None] | None = getattr(self, name, None)
        if handler is None:
            raise ConfigError(f"no handler {name!r}", where=record, remedy="correct its info tag python:put")
        return handler

    def change(self, setpoint: Setpoint, raw: Any) -> None:
        """Change one of the settings in force; the record of a refused put shows the setting in force again.

        Raises
        ------
        PtychostreamError
            The put is refused.
        """
        key, where, remedy = setpoint.key, setpoint.record, "write a value that it allows"
        try:
            if setpoint.is_cut(raw):
                what = f"the text fills the record, which holds {setpoint.room} bytes, and may be cut"
                raise ConfigError(what, where=where, remedy="give a shorter one, or set it in the configuration file")
            value = setpoint.value(raw)
            if setpoint.type is Path and value is not None and not self._is_models(key):
                value = inside(str(value), self._roots, where, "access.roots")
            changed(self._parts.settings, {key: value}, where, remedy)
            apply(self._parts, key, value)
            with self._changing:  # slow puts run beside others
                self._parts.settings = changed(self._parts.settings, {key: value}, where, remedy)
                if setpoint.type is Path:
                    self._parts.typed[where] = str(raw).strip()
        except Exception:
            self._restore(where, raw, setpoint.shown(setpoint.declared.value(self._parts.settings)))
            raise

    def _is_models(self, key: str) -> bool:
        """Whether the slot itself sees to it that the path lies in the folder of models."""
        return key == "model.file" and self._parts.settings.model.directory is not None

    def enable_callbacks(self, value: int) -> None:
        self._parts.stream.subscribe(enabled=bool(value))

    def array_counter(self, value: int) -> None:
        self._parts.counter_offset = int(value) - self._parts.pipeline.snapshot().received

    def reset_counters(self, value: int) -> None:
        def reset() -> None:
            self._parts.pipeline.reset_counters()
            self._parts.positions.restart_counts()
            self._parts.stream.restart_counts()
            self._parts.counter_offset = 0

        self._command("ResetCounters", value, reset)

    def load_model(self, value: int) -> None:
        self._command("LoadModel", value, lambda: self._parts.slot.load(self._parts.settings.model.file or ""))

    def rollback_model(self, value: int) -> None:
        self._command("RollbackModel", value, self._parts.rollback.by_operator)

    def acknowledge_rollback(self, value: int) -> None:
        self._command("AcknowledgeRollback", value, self._parts.rollback.acknowledge)

    def agent_judged(self, value: str) -> None:
        figures = (float(self._read(f"Agent:{name}")) for name in ("SSIM", "SSIMPrevious"))
        judged = Judgement(value.strip(), str(self._read("Agent:JudgedPreviousSHA")), *figures)
        agent, signed = self._parts.agent, str(self._read("Agent:JudgedSignature"))
        self._parts.rollback.judged(judged, self._parts.verdicts.check(judged, signed, agent.holder, agent.holds))

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

    def compare_ssim(self, value: int) -> None:
        self._command("CompareSSIM", value, self._parts.comparison.run)

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

    def positions_x(self, value: NDArray[np.float64]) -> None:
        self._parts.positions.write(x=np.array(value))

    def positions_y(self, value: NDArray[np.float64]) -> None:
        self._parts.positions.write(y=np.array(value))

    def positions_complete(self, value: int) -> None:
        if value:
            self._parts.positions.complete()

    def show_scan(self, value: int) -> None:
        self._parts.shown.wish = int(value)
        self._parts.images.serve(again=True)

    def save_canvas(self, value: int) -> None:
        self._command("SaveCanvas", value, lambda: self._parts.saver.save(self._parts.shown.canvas()))

    def _command(self, name: str, value: int, action: Callable[[], Any]) -> None:
        """Run `action` on a put of anything but 0. The record is 1 until then, and 0 when the put completes."""
        if not value:
            return
        try:
            self._begin_command(name)
            action()
        finally:
            self._refresh()
            self._reset_command(name)


def apply(parts: Parts, key: str, value: Any) -> None:
    """Tell the part that uses the setting `key` of its new value; nothing where the part reads `parts.settings`."""
    pipeline, positions, stream = parts.pipeline, parts.positions, parts.stream

    def attributes(**names: str) -> None:
        positions.set_attributes(**names)
        stream.subscribe(attributes=positions.attributes)

    def batch() -> None:
        parts.slot.use_engine(batch=value)
        pipeline.configure(batch=value)

    def dose_mode() -> None:
        pipeline.scan_dose.automatic = value == "Auto"
        pipeline.dose_scale = parts.settings.dose_scale

    actions: dict[str, Callable[[], Any]] = {
        "input.pv": lambda: stream.subscribe(channel=value),
        "pipeline.batch": batch,
        "engine.name": lambda: parts.slot.use_engine(name=value),
        "engine.precision": lambda: parts.slot.use_engine(precision=value),
        "positions.source": lambda: positions.select(value),
        "positions.x_attribute": lambda: attributes(x=value),
        "positions.y_attribute": lambda: attributes(y=value),
        "positions.route_file": lambda: positions.set_route(str(value or "")),
        "positions.stream.pv": lambda: positions.by_time.subscribe(channel=value),
        "positions.index.pv": lambda: positions.by_index.subscribe(channel=value),
        "positions.panda.host": lambda: positions.panda.subscribe(channel=value),
        "scan.keep": lambda: pipeline.keep_canvases(value),
        "save.directory": lambda: setattr(parts.saver, "directory", str(value or "")),
        "save.automatic": lambda: setattr(parts.saver, "automatic", value),
        "dose_scale": lambda: setattr(pipeline, "dose_scale", value),
        "dose_mode": dose_mode,
        "phase_rate_hz": lambda: setattr(parts.images, "rate_hz", value),
        "ssim_reference": lambda: setattr(parts.comparison, "reference", str(value or "")),
        "ssim_tolerance": lambda: setattr(parts.comparison, "tolerance", value),
        "canary_limit": lambda: setattr(parts.slot.canary, "limit", value),
        "rollback_tolerance": lambda: setattr(parts.rollback, "tolerance", value),
    }
    sections: dict[str, Callable[..., Any]] = {
        "refine.": parts.refinement.configure,
        "pipeline.": pipeline.configure,
        "positions.stream.": positions.set_stream,
        "positions.gate.": positions.set_gate,
    }
    if key in actions:
        actions[key]()
        return
    for section, configure in sections.items():
        if key.startswith(section):
            configure(**_nested(key.removeprefix(section), value))


def _nested(key: str, value: Any) -> dict[str, Any]:
    """`{"decimation": {"mode": value}}` of "decimation.mode"."""
    name, _, rest = key.partition(".")
    return {name: _nested(rest, value) if rest else value}
