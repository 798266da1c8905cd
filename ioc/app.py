"""The soft IOC: started, brought up to date, ended."""

from __future__ import annotations

import atexit
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Collection
from functools import cached_property
from types import FrameType

import numpy as np
from softioc import softioc

from ptychostream.errors import PtychostreamError
from ptychostream.ioc import gpu
from ptychostream.ioc.records import access
from ptychostream.ioc.records import autosave
from ptychostream.ioc.records import devices
from ptychostream.ioc.records import preflight
from ptychostream.ioc.agent_watch import AgentWatch
from ptychostream.ioc.assembly import assemble
from ptychostream.ioc.collector.collector import Collector
from ptychostream.ioc.declarations import load_others
from ptychostream.db.templates import GROUPS
from ptychostream.ioc.images.consistency_watch import ConsistencyWatch
from ptychostream.ioc.images.images import UNITS
from ptychostream.ioc.images.refined_images import REFINED_IMAGES
from ptychostream.ioc.records.database import (
    CLUSTER_GROUP, GPU_GROUP, keep_memory_pageable, load_group, put_static, records,
)  # fmt: skip
from ptychostream.ioc.handlers import Handlers
from ptychostream.ioc.pace import UpdatePace
from ptychostream.ioc.readbacks import readbacks, values
from ptychostream.ioc.stream_state import stream_state
from ptychostream.ioc.view import View
from ptychostream.ioc.model.model_rpc import ModelRpc
from ptychostream.ioc.model.model_rpc_folder import PushedModels
from ptychostream.ioc.model.model_slot import SlotState
from ptychostream.ioc.records.put_log import PutLog
from ptychostream.ioc.records.pvi import provider, pvi_structures
from ptychostream.ioc.records.records import Records, Value
from ptychostream.ioc.records.whereabouts import whereabouts
from ptychostream.ioc.residual_map import ResidualMap
from ptychostream.ioc.scan_control import ScanControl
from ptychostream.ioc.config.setpoints import setpoints
from ptychostream.ioc.config.settings import IocSettings
from ptychostream.ioc.config.start import begin
from ptychostream.model.model_push import read_key
from ptychostream.plugins.diagnosis import READY, SUBSCRIPTION, Diagnoser, Diagnosis
from ptychostream.processes.stopping import end_within
from ptychostream.plugins.engines.plain import PLAIN
from ptychostream.plugins.flow.snapshot import Snapshot
from ptychostream.plugins.pipeline import Pipeline
from ptychostream.plugins.trajectory import Trajectory

log = logging.getLogger(__name__)

_DRAIN_S = 3.0
_END_S = 4.5
"""Seconds from the signal to the end, whatever waits."""
_REFUSAL_S = 60.0
"""A refused put is shown for so long."""


def run(settings: IocSettings, given: Collection[str], kind: type[Ioc] | None = None) -> int:
    """Serve until SIGTERM or SIGINT; does not return once the IOC has started, but ends the process.

    Parameters
    ----------
    settings
        The configuration, command line included.
    given
        Dotted keys that the command line gave.
    kind
        Kind of the IOC; a subclass of `Ioc` has figures of its own.

    Raises
    ------
    PtychostreamError
        It cannot start: a port or the prefix is taken, a file is damaged.
    """
    pace = UpdatePace(settings.update_rate_hz)

    ioc: Ioc | None = None

    def stop(number: int, _frame: FrameType | None) -> None:
        if pace.stopped:
            os._exit(128 + number)  # asked a second time
        log.info("%s: ending; a second signal ends at once", signal.Signals(number).name)
        pace.stop()
        end_within(_END_S, lambda: ioc.unfinished() if ioc is not None else "it had not started")

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    ioc = (kind or Ioc)(settings, given, pace.ask)
    code = 1
    try:
        ioc.start()
        while pace.wait():
            if pace.regular:
                ioc.judge()
            ioc.update()
            ioc.beat()
            pace.done()
        code = 0 if ioc.stop() else 1
    except Exception:
        log.exception("the IOC failed")
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    atexit._run_exitfuncs()  # those of the EPICS libraries among them, as `softioc.epicsExit` does
    os._exit(code)  # the libraries' threads run still, and must not see the end of what they use


class Ioc:
    """Everything between the command line and the records. The constructor checks and loads, `start` serves.

    Settings that a subclass of `IocSettings` declares are served like those of this package; so are the figures that
    the snapshots of other kinds of `pipelines` and `collectors` declare.
    """

    pipelines: type[Pipeline] = Pipeline
    collectors: type[Collector] = Collector

    def __init__(self, settings: IocSettings, given: Collection[str], ask: Callable[[], None]) -> None:
        self._settings = settings
        self._updating = threading.Lock()
        self._refusal = ""
        self._refused_s = 0.0
        self._consistency = ConsistencyWatch()
        self._next_beat_s = 0.0
        self._diagnoser = Diagnoser()
        self._trajectory: tuple[Trajectory | None, int] | None = None
        self._residuals = ResidualMap()
        self._started = False
        with preflight.checked(settings.prefix, settings.images_port):
            self._load(settings, given, ask)

    def _load(self, settings: IocSettings, given: Collection[str], ask: Callable[[], None]) -> None:
        prefix = settings.prefix
        gpu_here = gpu.read() is not None
        in_cluster = bool(settings.cluster.consumers)
        extra = ((GPU_GROUP, gpu_here), (CLUSTER_GROUP, in_cluster))
        groups = (*GROUPS, *(name for name, wanted in extra if wanted))
        names = {group: load_group(group, prefix, {"POINTS": settings.positions.points}) for group in groups}
        snapshots = self.collectors.snapshots if in_cluster else self.pipelines.snapshots
        self._shown = [one for one in readbacks(snapshots) if in_cluster or one.group != CLUSTER_GROUP]
        load_others(prefix, type(settings), self._shown)
        saved = autosave.read_values(settings.autosave) if settings.autosave else {}
        for axis in ("X", "Y"):
            put_static(f"{prefix}Positions{axis}", "EGU", settings.positions.axes.unit)
        infos = list(records())
        kept, passed_over = autosave.usable(saved, infos, prefix)
        settings, self._texts, refused = begin(settings, kept, given)
        self._passed_over = (*passed_over, *refused)
        for why in self._passed_over:
            log.warning("the autosave file's line is passed over: %s", why)
        self._first_model = self._texts["ModelFile"]
        if "model.file" not in given:
            self._first_model = kept.get("ModelFile_RBV") or self._first_model
        texts = {f"{prefix}{name}": text for name, text in self._texts.items()}
        for name, text in texts.items():
            put_static(name, "VAL", text)
        self._records = Records(prefix, infos)
        grouped = {group: [info for info in infos if info.name in names[group]] for group in groups}
        self._pvi = pvi_structures(prefix, grouped, (*UNITS, *REFINED_IMAGES))
        key = read_key(settings.model.key_file, "model.key_file")
        self._parts = assemble(settings, self.update, ask, self._frame_ended, self.pipelines, self.collectors, key)
        scale = self._records.info("DoseScale").fields
        self._parts.pipeline.scan_dose.limits = float(scale["DRVL"]), float(scale["DRVH"])
        self._dispatcher = devices.Dispatcher(self._put_done)
        self._scans = ScanControl(self._parts, settings.scan, self._dispatcher.run_slow, self.update, ask)
        handlers = Handlers(
            self._parts,
            self.update,
            self._scans.end_scan,
            self._records.begin_command,
            self._records.reset_command,
            self._records.get,
            self._records.restore,
        )
        self._agent = AgentWatch(self._parts.agent, self._records)
        devices.bind(infos, lambda info, name: handlers.of(info.name.removeprefix(prefix), name), texts)
        self._gpu = gpu.GpuWatch(self._show_gpu) if gpu_here else None
        self._autosave: autosave.Autosave | None = None
        if settings.autosave is not None:
            self._autosave = autosave.Autosave(settings.autosave, self._to_save, self._autosaved)
        self._access = access.choose(settings.access)
        access.install(self._access)
        self._put_log = PutLog()
        self._rpc = ModelRpc(
            prefix,
            self._parts.slot,
            PushedModels(settings.model.directory, settings.model.keep),
            may_write=access.may_write,
            max_bytes=settings.model.max_bytes,
            key=key,
            after=self.update,
        )

    def start(self) -> None:
        """Serve records and images, build the first engine, subscribe to the detector."""
        parts, texts = self._parts, self._texts
        keep_memory_pageable()
        softioc.iocInit(self._dispatcher)
        self._records.put_all(
            {
                "AutosaveStatus_RBV": 0,
                "AutosaveTime_RBV": "",
                "AutosavePassedOver_RBV": len(self._passed_over),
                "AutosaveMessage_RBV": "\n".join(self._passed_over),
                "Access_RBV": self._access.mode.value,
                **whereabouts(),
                "START_CNT": int(texts.get("START_CNT", "0") or 0) + 1,
            }
        )
        parts.pipeline.start()
        parts.images.start(self._rpc.open(), parts.refined.open(), provider(self._pvi))
        parts.pipeline.expect_engine(True)
        threading.Thread(target=self._first_engine, name="first engine", daemon=True).start()
        self._started = True
        parts.stream.subscribe(
            channel=parts.settings.input.pv,
            attributes=parts.positions.attributes,
            enabled=texts.get("EnableCallbacks", "1") != "0",
        )
        parts.positions.start()
        self._dispatcher.open()
        for part in (self._scans, self._gpu, self._autosave, parts.saver, parts.refinement, parts.refined):
            if part is not None:
                part.start()
        self.update()
        what = "serving %s over Channel Access and PV Access; images and pushed models at TCP port %d"
        log.info(what, self._settings.prefix, parts.images.port)

    def stop(self) -> bool:
        """End it: what was received is stitched, setpoints are saved. False when the engine did not come back."""
        self._dispatcher.close()
        self._rpc.stop()
        self._parts.agent.close()
        for part in (self._scans, self._gpu, self._parts.stream, self._parts.positions):
            if part is not None:
                part.stop()
        clean = self._parts.pipeline.stop(_DRAIN_S)
        if not clean:
            log.error("the engine did not return within %.0f s: %s", _DRAIN_S, self.unfinished())
        self._parts.slot.close()
        self._parts.refinement.stop()
        self._parts.refined.stop()
        self._parts.saver.stop()
        self.update()
        self._parts.images.stop()
        if self._autosave is not None:
            self._autosave.stop()
        return clean

    def unfinished(self) -> str:
        """What an end by force leaves undone, in words."""
        snapshot, saver = self._parts.pipeline.snapshot(), self._parts.saver
        return f"{snapshot.pending} frames are not stitched, {saver.waiting} canvases are not saved"

    def beat(self) -> None:
        """Process HEARTBEAT, and what is linked to it, once a second. For the main loop alone.

        By the monotonic clock: EPICS's periodic scans stand still while a time of day that was set back catches up.
        """
        now = time.monotonic()
        if now >= self._next_beat_s:
            self._next_beat_s = max(self._next_beat_s + 1.0, now)
            self._records.process("HEARTBEAT")

    def judge(self) -> None:
        """Compare the latest patch with its pattern. For the main loop alone: it may take some milliseconds."""
        self._consistency.look(self._parts.pipeline.snapshot().patch)

    def update(self) -> None:
        """Bring every readback up to date. Any thread."""
        if not self._started:
            return
        parts = self._parts
        self._scans.tick()
        parts.stream.look()
        with self._updating:  # a value taken earlier must not be written later
            snapshot = parts.pipeline.snapshot()
            self._agent.look()
            parts.rollback.follow()
            found = self._diagnoser.look(stream_state(parts, snapshot))
            view = View(
                parts=parts,
                scans=self._scans,
                snapshot=snapshot,
                latencies=parts.pipeline.times.latencies(),
                consistency=self._consistency.latest,
                ready=self._ready(found),
                status=self._status(snapshot, found),
                now=time.time(),
            )
            self._records.put_all(values(view, self._shown))
            self._show_trajectory()
            self._residuals.show(parts.refinement.latest, self._records)

    def _show_trajectory(self) -> None:
        canvas = self._parts.shown.canvas()
        trajectory = canvas.trajectory if canvas is not None else None
        now = (trajectory, trajectory.seen if trajectory is not None else 0)
        if now == self._trajectory:
            return
        self._trajectory = now
        x_um, y_um = trajectory.places_um() if trajectory is not None else np.empty((2, 0))
        self._records.put_array("TrajectoryX_RBV", x_um)
        self._records.put_array("TrajectoryY_RBV", y_um)

    def _frame_ended(self, scan: str) -> None:
        self._scans.ended(scan)

    def _first_engine(self) -> None:
        slot, path = self._parts.slot, self._first_model
        try:
            if path:
                slot.load(path)
            elif slot.wish.name == PLAIN:
                slot.run_plain()
        except PtychostreamError as error:
            log.error("%s", error)
        finally:
            self._parts.pipeline.expect_engine(False)
        self.update()

    def _ready(self, found: Diagnosis) -> bool:
        parts = self._parts
        served = parts.slot.live is not None and parts.images.running and parts.stream.connected
        return served and (not found.stopped or found.where in READY)

    def _status(self, snapshot: Snapshot, found: Diagnosis) -> str:
        parts = self._parts
        if self._refusal and time.monotonic() - self._refused_s < _REFUSAL_S:
            return self._refusal
        if parts.slot.live is None:
            building = parts.slot.state in (SlotState.STAGING, SlotState.CHECKING, SlotState.BUILDING)
            return parts.slot.message if building else f"frames are dropped: {parts.slot.message}"
        if found.where in SUBSCRIPTION:
            return found.text
        return parts.positions.failure or found.text or snapshot.message or "running"

    def _put_done(self, failure: Exception | None) -> None:
        self._refusal = f"refused: {failure}" if failure is not None else ""
        self._refused_s = time.monotonic()
        self.update()

    def _show_gpu(self, health: gpu.GpuHealth) -> None:
        self._records.put("GPUTemperature_RBV", health.temperature_c)
        self._records.put("GPUPower_RBV", health.power_w)

    def _to_save(self) -> dict[str, Value]:
        """Values for the autosave file: settings in force, and the other records that are kept."""
        known, settings = setpoints(type(self._parts.settings)), self._parts.settings
        return {
            full: known[name].shown(known[name].declared.value(settings)) if name in known else self._records.get(name)
            for name, full in self._saved.items()
        }

    @cached_property
    def _saved(self) -> dict[str, str]:
        """The full name of every record that is autosaved, by its name. The database does not change while it runs."""
        infos = {name: self._records.info(name) for name in self._records.names()}
        return {name: info.name for name, info in infos.items() if "autosaveFields" in info.info}

    def _autosaved(self, failure: str) -> None:
        self._records.put("AutosaveStatus_RBV", int(bool(failure)))
        if not failure:
            self._records.put("AutosaveTime_RBV", autosave.now_text())
