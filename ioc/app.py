"""The soft IOC: its parts put together, started, brought up to date, ended."""

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
from ptychostream.errors import ConfigError, PtychostreamError
from ptychostream.ioc import access, autosave, devices, gpu, preflight, values
from ptychostream.ioc.comparison import Comparison
from ptychostream.ioc.database import load_templates, put_static, records
from ptychostream.ioc.engine_maker import PLAIN, EngineMaker, plain_contract, warm_up
from ptychostream.ioc.handlers import Handlers, Operating, Parts
from ptychostream.ioc.images import ImageServer
from ptychostream.ioc.model_slot import EngineWish, ModelSlot
from ptychostream.ioc.position_desk import PositionDesk
from ptychostream.ioc.records import Records
from ptychostream.ioc.setpoints import DOSE_MODES, Start
from ptychostream.ioc.settings import ENGINES, POSITION_SOURCES, PRECISIONS, IocSettings
from ptychostream.ioc.stream import ScanWatch, Stream
from ptychostream.plugins.pipeline import Pipeline

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
    except Exception:  # noqa: BLE001 - the process's outermost loop: EPICS must be ended its own way
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
        prefix = settings.prefix
        preflight.check_environment(prefix)
        with_gpu = gpu.read() is not None
        load_templates(prefix, {"POINTS": settings.positions.points}, ("gpu",) if with_gpu else ())
        saved = autosave.read_values(settings.autosave) if settings.autosave else {}
        start = Start(settings, {name.removeprefix(prefix): text for name, text in saved.items()}, given)
        self._start = start
        infos = list(records())
        self.records = Records(prefix, infos)
        for name, text in start.texts.items():
            put_static(f"{prefix}{name}", "VAL", text)
        self._access = access.choose(settings.access)
        self._parts = self._make_parts(start)
        self._dispatcher = devices.Dispatcher(self._put_done)
        self._handlers = Handlers(self._parts, self.update, self.end_scan, self.records.reset_command)
        devices.bind(infos, self._handlers, {f"{prefix}{name}": text for name, text in start.texts.items()})
        self._updating = threading.Lock()
        self._refusal = ""
        self._watch = self._make_watch()
        self._gpu = gpu.GpuWatch(self._show_gpu) if with_gpu else None
        self._autosave = (
            autosave.Autosave(settings.autosave, self.records, self._autosaved) if settings.autosave else None
        )
        access.install(*self._access)
"""
