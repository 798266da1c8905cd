"""The processes of the soak: detector, network, IOC and clients. It starts them, applies faults and reads figures.

detector ──► PvaProxy ──► ioc ──► two image clients, a monitoring and a writing CA client
"""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from ptychostream.benchmarks.measured import Measured
from ptychostream.benchmarks.soak.soak_clock import SteppedClock, compiler
from ptychostream.benchmarks.soak.soak_journal import Journal
from ptychostream.benchmarks.soak.soak_model import write_mark_model
from ptychostream.benchmarks.soak.soak_proxy import PvaProxy
from ptychostream.benchmarks.soak.soak_source import SoakSource
from ptychostream.demo.live import CAUSES
from ptychostream.demo.pvs import Pvs
from ptychostream.errors import StreamError
from ptychostream.processes.loopback import LOOPBACK, free_ports, loopback_environment

PREFIX = "soak:"
CHANNEL = "soak:det:Image"
START_TIMEOUT_S = 120.0
POLL_S = 0.1
MAX_CANVAS_PIXELS = 40_000_000
"""Small enough that a runaway axis exceeds it."""
_TAIL = 4096
_NAMES = (
    "FramesReceived_RBV", "FramesStitched_RBV", "FramesPending_RBV", "FramesMissed_RBV", "Accounting_RBV",
    "AccountingError_RBV", *(f"Dropped{cause}_RBV" for cause in CAUSES),
)  # fmt: skip


@dataclass(frozen=True)
class Figures:
    """The IOC's counts of frames. `error` = received - stitched - pending - Σ dropped."""

    received: int
    stitched: int
    pending: int
    missed: int
    law_broken: bool
    error: int
    dropped: Mapping[str, int]

    @property
    def seen(self) -> int:
        """The number of frames that were received (without duplicates) or counted as missed."""
        return self.received - self.dropped["Duplicate"] + self.missed


class Victim(Measured):
    """A child that can be killed, frozen and inspected."""

    @property
    def pid(self) -> int:
        return self._process.pid

    def send(self, number: signal.Signals) -> None:
        """Send a signal, such as SIGKILL, SIGSTOP or SIGCONT."""
        self._process.send_signal(number)
        if number == signal.SIGKILL:
            self._process.wait()

    def memory(self, field: str) -> int:
        """`VmSize`, `VmRSS` … in bytes. 0 if the process has ended."""
        return 1024 * self._status(field)

    @property
    def threads(self) -> int:
        return self._status("Threads")

    @property
    def descriptors(self) -> int:
        """The number of open file descriptors."""
        try:
            return len(os.listdir(f"/proc/{self.pid}/fd"))  # noqa: PTH208 - names alone
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            return 0

    def _status(self, field: str) -> int:
        try:
            lines = Path(f"/proc/{self.pid}/status").read_text(encoding="ascii").splitlines()
        except (FileNotFoundError, ProcessLookupError):
            return 0
        return next((int(line.split()[1]) for line in lines if line.startswith(f"{field}:")), 0)

    def latest(self) -> dict[str, Any]:
        """The last printed line of JSON. Empty before the first one."""
        with self.log_path.open("rb") as log:
            log.seek(max(0, log.seek(0, os.SEEK_END) - _TAIL))
            lines = log.read().decode("utf-8", errors="replace").split("\n")[:-1]
        return next((json.loads(line) for line in reversed(lines) if line.startswith("{") and line.endswith("}")), {})


class Stage:
    """All processes. As a context manager it ends them at the end of the block.

    Parameters
    ----------
    folder
        Folder of logs, model, setpoints and the journal.
    rate_hz
        Frames per second.
    side
        Pixels of a frame's side.
    seed
        Seed of the writing client.
    """

    def __init__(self, folder: Path, rate_hz: float = 200.0, side: int = 64, seed: int = 0) -> None:
        self.folder, self.rate_hz, self.side, self.seed = folder, rate_hz, side, seed
        self.autosave = folder / "setpoints.sav"
        self._stack = ExitStack()
        self.lives = 0
        """The number of started IOCs."""
        self.scan = 0

    def __enter__(self) -> Stage:
        with ExitStack() as stack:
            self._stack = stack
            self._open()
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def _open(self) -> None:
        ca, ioc, proxy, detector = free_ports(4)
        self.environment = loopback_environment([ca], ioc)
        self._ioc_environment = {**self.environment, "EPICS_PVA_ADDR_LIST": f"{LOOPBACK}:{proxy}"}
        self._source_environment = loopback_environment([ca], detector)
        self.clock: SteppedClock | None = None
        if compiler() is not None:
            self.clock = SteppedClock(self.folder)
            self._ioc_environment = self.clock.environment(self._ioc_environment)
        self._model, self._config = self.folder / "model.onnx", self.folder / "ioc.toml"
        write_mark_model(self._model, self.side)
        self._config.write_text(f"[pipeline]\nmax_canvas_pixels = {MAX_CANVAS_PIXELS}\n", encoding="utf-8")
        self.journal = Journal(self.folder / "journal")
        self.proxy = self._stack.enter_context(PvaProxy(proxy, detector))
        self.pvs = Pvs(PREFIX, self.environment)
        self._stack.callback(self.pvs.close)
        self._stack.callback(lambda: self.ioc.stop())
        self._stack.callback(lambda: self.source.stop())
        self.start_source()
        self.start_ioc()
        self.image_client = self._client("stream_client", "image", f"{PREFIX}Phase")
        self.frozen_client = self._client("stream_client", "image-frozen", f"{PREFIX}Phase")
        self.monitor = self._client("soak.soak_client", "monitor", "monitor", PREFIX)
        self.writer = self._client("soak.soak_client", "writer", "write", PREFIX, str(self.seed))
        self.wait(lambda: self.image_client.latest() and self.frozen_client.latest(), START_TIMEOUT_S, "image clients")

    def start_source(self) -> None:
        """Start the detector. Its first scan is the one after the allowed scans."""
        settings = SoakSource(
            channel=CHANNEL,
            rate_hz=self.rate_hz,
            side=self.side,
            journal=self.folder / "journal",
            first=self.journal.allowed + 1,
        )
        module, log = "ptychostream.benchmarks.soak.soak_source", self.folder / f"detector-{self.journal.allowed}.log"
        self.source = Victim(module, [settings.model_dump_json()], log, self._source_environment)

    def start_ioc(self) -> None:
        """Start the IOC and wait until its model is live."""
        self.lives += 1
        words = ["ioc", "--config", str(self._config), "--prefix", PREFIX, "--input-pv", CHANNEL]
        words += ["--model", str(self._model), "--engine", "ONNXRuntime", "--threads", "1"]
        words += ["--autosave", str(self.autosave), "--engine-cache", str(self.folder / "engines")]
        self.ioc = Victim("ptychostream", words, self.folder / f"ioc-{self.lives}.log", self._ioc_environment)
        self.wait(lambda: self.value("ModelState_RBV") == 4, START_TIMEOUT_S, "the IOC's engine")

    def _client(self, module: str, name: str, *words: str) -> Victim:
        log = self.folder / f"{name}.log"
        return self._stack.enter_context(
            Victim(f"ptychostream.benchmarks.{module}", list(words), log, self.environment)
        )

    # ------------------------------------------------------------ scans

    def begin_scan(self) -> int:
        """Let the detector send its next scan. Returns the scan's number."""
        self.scan = self.journal.allowed + 1
        self.journal.allowed = self.scan
        return self.scan

    def end_scan(self, timeout_s: float = 10.0) -> None:
        """Let the detector end its scan, and wait until it has ended."""
        self.journal.ending = self.scan
        self.wait(lambda: self.journal.ended >= self.scan, timeout_s, f"the end of scan {self.scan}")

    def settle(self, quiet_s: float = 0.6, timeout_s: float = 60.0) -> Figures:
        """Wait until the counts do not change any more. Returns the IOC's figures."""
        before, moved, deadline = self.figures(), time.monotonic(), time.monotonic() + timeout_s
        while True:
            time.sleep(POLL_S)
            now = self.figures()
            if now != before:
                before, moved = now, time.monotonic()
            elif now.pending == 0 and time.monotonic() - moved > quiet_s:
                return now
            if time.monotonic() > deadline:
                raise StreamError(
                    f"frames still move after {timeout_s:.0f} s: {now}",
                    where=str(self.ioc.log_path),
                    remedy="see that log",
                )

    def settle_pending(self, timeout_s: float = 10.0) -> None:
        """Wait until the frames that are pending now are not pending any more. Other frames may arrive meanwhile."""
        goal = self.figures().received
        self.wait(lambda: (now := self.figures()).received - now.pending >= goal, timeout_s, "the pending frames")

    # ------------------------------------------------------------ figures

    def figures(self, timeout_s: float = 5.0) -> Figures:
        """The IOC's accounting. Raises TimeoutError."""
        values = [int(value) for value in self.pvs.get(*_NAMES, timeout_s=timeout_s)]
        received, stitched, pending, missed, broken, error, *dropped = values
        drops = dict(zip(CAUSES, dropped, strict=True))
        return Figures(received, stitched, pending, missed, bool(broken), error, drops)

    def value(self, name: str) -> Any:
        """The value of a record, or None if the IOC does not answer."""
        try:
            return self.pvs.get(name, timeout_s=0.5)[0]
        except TimeoutError:
            return None

    def wait(self, condition: Callable[[], Any], timeout_s: float, what: str) -> None:
        """Wait until the condition is true. Raises StreamError after the time limit or if the IOC has ended."""
        deadline = time.monotonic() + timeout_s
        while not condition():
            if not self.ioc.running():
                raise self.ioc.failure()
            if time.monotonic() > deadline:
                raise StreamError(
                    f"not within {timeout_s:.0f} s: {what}", where=str(self.ioc.log_path), remedy="see the logs there"
                )
            time.sleep(POLL_S)
