"""The soft IOC: started, brought up to date, ended."""

from __future__ import annotations

import logging
import signal
import sys
import threading
import time
from collections.abc import Collection
from concurrent.futures import Future
from types import FrameType

from softioc import softioc

from ptychostream import __version__
from ptychostream.errors import PtychostreamError
from ptychostream.ioc import access, autosave, devices, gpu, preflight, values
from ptychostream.ioc.assembly import assemble
from ptychostream.ioc.database import GPU_GROUP, GROUPS, load_group, put_static, records
from ptychostream.ioc.engine_maker import PLAIN
from ptychostream.ioc.handlers import Handlers
from ptychostream.ioc.model_slot import SlotState
from ptychostream.ioc.records import Records
from ptychostream.ioc.setpoints import Start
from ptychostream.ioc.settings import IocSettings
from ptychostream.ioc.stream import ScanWatch

log = logging.getLogger(__name__)

_DRAIN_S = 10.0


def run(settings: IocSettings, given: Collection[str]) -> int:
    """Serve until SIGTERM or SIGINT; does not return once the IOC has started, but ends the process.

    Parameters
    ----------
    settings
        The configuration, command line included.
    given
        Dotted keys that the command line gave.

    Raises
    ------
    PtychostreamError
        It cannot start: a port or the prefix is taken, a file is damaged.
    """
    stopped = threading.Event()

    def stop(number: int, _frame: FrameType | None) -> None:
        log.info("%s: ending", signal.Signals(number).name)
        stopped.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    ioc = Ioc(settings, given)
    code = 1
    try:
        ioc.start()
        while not stopped.wait(1.0 / settings.update_rate_hz):
            ioc.update()
        code = 0 if ioc.stop() else 1
    except Exception:
        log.exception("the IOC failed")
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    softioc.epicsExit(code)
    return code


class Ioc:
    """Everything between the command line and the records. The constructor checks and loads, `start` serves."""

    def __init__(self, settings: IocSettings, given: Collection[str]) -> None:
        self._settings = settings
        self._updating = threading.Lock()
        self._refusal = ""
        self._started = False
        with preflight.checked(settings.prefix):
            self._load(settings, given)

    def _load(self, settings: IocSettings, given: Collection[str]) -> None:
        prefix = settings.prefix
        gpu_here = gpu.read() is not None
        for group in (*GROUPS, GPU_GROUP) if gpu_here else GROUPS:
            load_group(group, prefix, {"POINTS": settings.positions.points})
        saved = autosave.read_values(settings.autosave) if settings.autosave else {}
        self._start = Start(settings, {name.removeprefix(prefix): text for name, text in saved.items()}, given)
        infos = list(records())
        texts = {f"{prefix}{name}": text for name, text in self._start.texts.items()}
        for name, text in texts.items():
            put_static(name, "VAL", text)
        self._records = Records(prefix, infos)
        files = access.choose(settings.access)
        self._parts = assemble(settings, self._start, files, self.update, self._frame_ended)
        self._dispatcher = devices.Dispatcher(self._put_done)
        handlers = Handlers(self._parts, self.update, self.end_scan, self._records.reset_command)
        devices.bind(infos, handlers, texts)
        self._watch = self._make_watch()
        self._gpu = gpu.GpuWatch(self._show_gpu) if gpu_here else None
        self._autosave: autosave.Autosave | None = None
        if settings.autosave is not None:
            self._autosave = autosave.Autosave(settings.autosave, self._records, self._autosaved)
        access.install(*files)

    def start(self) -> None:
        """Serve records and images, build the first engine, subscribe to the detector."""
        parts, start = self._parts, self._start
        softioc.iocInit(self._dispatcher)
        self._records.put_all(
            {
                "Version_RBV": __version__,
                "AutosaveStatus_RBV": 0,
                "AutosaveTime_RBV": "",
                "START_CNT": int(start.texts.get("START_CNT", "0") or 0) + 1,
                **values.axes_values(self._settings.positions.axes),
            }
        )
        parts.pipeline.start()
        parts.images.start()
        threading.Thread(target=self._first_engine, name="first engine", daemon=True).start()
        self._started = True
        parts.stream.subscribe(
            channel=start.texts["InputPVAName"],
            attributes=parts.positions.attributes,
            enabled=start.texts.get("EnableCallbacks", "1") != "0",
        )
        self._dispatcher.open()
        for part in (self._watch, self._gpu, self._autosave):
            if part is not None:
                part.start()
        self.update()
        log.info("serving %s over Channel Access and PV Access", self._settings.prefix)

    def stop(self) -> bool:
        """End it: what was received is stitched, setpoints are saved. False when the engine did not come back."""
        self._dispatcher.close()
        for part in (self._watch, self._gpu, self._parts.stream):
            if part is not None:
                part.stop()
        clean = self._parts.pipeline.stop(_DRAIN_S)
        self.update()
        self._parts.images.stop()
        if self._autosave is not None:
            self._autosave.stop()
        return clean

    def update(self) -> None:
        """Bring every readback up to date. Any thread."""
        if not self._started:
            return
        parts, operating = self._parts, self._parts.operating
        with self._updating:  # a value taken earlier must not be written later
            snapshot = parts.pipeline.snapshot()
            self._automatic_dose(snapshot.mean_counts)
            shown = {
                **values.pipeline_values(snapshot, operating.scan_frames, operating.counter_offset),
                **values.look_values(parts.stream.look),
                **values.slot_values(parts.slot, time.time()),
                **values.image_values(parts.images),
                **values.position_values(parts.positions),
                **values.comparison_values(parts.comparison),
                "MaxLatency_RBV": operating.max_latency_ms,
                "DoseMode_RBV": operating.dose_mode,
                "EnableCallbacks_RBV": int(parts.stream.enabled),
                "InputPVAName_RBV": parts.stream.channel,
                "Connected_RBV": int(parts.stream.connected),
                "Ready_RBV": int(self._ready()),
                "StatusMessage_RBV": self._status(snapshot.message),
            }
            if self._watch is not None and self._watch.active is not None:
                shown["ScanActive_RBV"] = int(self._watch.active)
            self._records.put_all(shown)

    def end_scan(self) -> None:
        """End the scan: returns when its last frame is stitched, the image is served and compared."""
        self._finish_scan(self._parts.pipeline.end_scan(self._parts.pipeline.snapshot().scan))

    def _frame_ended(self, scan: str) -> None:
        ended = self._parts.pipeline.end_scan(scan)  # here, before the next scan's frames
        self._dispatcher.run_slow(lambda: self._finish_scan(ended))

    def _finish_scan(self, ended: Future[int]) -> None:
        ended.result()
        self._parts.positions.clear()
        self._parts.images.serve()
        if self._parts.comparison.reference:
            self._parts.comparison.run()
        self.update()

    def _first_engine(self) -> None:
        slot, path = self._parts.slot, self._start.model_file
        try:
            if path:
                slot.load(path)
            elif slot.wish.name == PLAIN:
                slot.run_plain()
        except PtychostreamError as error:
            log.error("%s", error)
        self.update()

    def _make_watch(self) -> ScanWatch | None:
        scan = self._settings.scan
        if not scan.active_pv:
            return None
        return ScanWatch(
            scan.active_pv,
            scan.active_provider,
            self._parts.stream.begin_scan,
            lambda: self._dispatcher.run_slow(self.end_scan),
        )

    def _ready(self) -> bool:
        parts = self._parts
        return parts.slot.live is not None and parts.images.running and parts.stream.connected

    def _status(self, message: str) -> str:
        parts = self._parts
        if self._refusal:
            return self._refusal
        if parts.slot.live is None:
            building = parts.slot.state in (SlotState.STAGING, SlotState.CHECKING, SlotState.BUILDING)
            return parts.slot.message if building else f"frames are dropped: {parts.slot.message}"
        if not parts.stream.enabled:
            return "not subscribed: EnableCallbacks is Disable"
        if not parts.stream.channel:
            return "no detector: InputPVAName is empty"
        if not parts.stream.connected:
            return f"waiting for {parts.stream.channel}"
        return parts.positions.failure or parts.images.failure or message or "running"

    def _automatic_dose(self, mean_counts: float) -> None:
        live, operating = self._parts.slot.live, self._parts.operating
        if operating.dose_mode == 0 or live is None:
            return
        fields = self._records.info("DoseScale").fields
        limits = float(fields["DRVL"]), float(fields["DRVH"])
        scale = values.automatic_dose(live.contract.mean_counts, mean_counts, limits)
        if scale is not None:
            self._parts.pipeline.dose_scale = scale

    def _put_done(self, failure: Exception | None) -> None:
        self._refusal = f"refused: {failure}" if failure is not None else ""
        self.update()

    def _show_gpu(self, health: gpu.GpuHealth) -> None:
        self._records.put("GPUTemperature_RBV", values.number(health.temperature_c))
        self._records.put("GPUPower_RBV", values.number(health.power_w))

    def _autosaved(self, failure: str) -> None:
        self._records.put("AutosaveStatus_RBV", int(bool(failure)))
        if not failure:
            self._records.put("AutosaveTime_RBV", autosave.now_text())
