"""The scan records of the beamline, served by an EPICS IOC in a child process."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from enum import IntEnum
from importlib.resources import files
from types import TracebackType
from typing import Any

import pvaccess as pva

from ptychostream.errors import StreamError
from ptychostream.processes.program import stop

START_TIMEOUT_S = 30.0
_PROBE_S = 0.3
_COMMAND_POLL_S = 0.05
_COMMANDS_QUEUED = 16
_TIMEOUT_S = 5.0
_STRING_CHARACTERS = 39


class ScanRecords:
    """Serves the records of `db/beamline.db`, and reads and writes them over PVA.

    Parameters
    ----------
    prefix
        Prefix of every record, with its colon.
    image_channel
        Value of `ImagePVAName_RBV`.
    points
        Length of the position waveforms.
    ca_port
        Channel Access port of the IOC. None: `EPICS_CAS_SERVER_PORT` or 5064. Two IOCs on one host need two ports.
    """

    def __init__(self, prefix: str, image_channel: str, points: int, ca_port: int | None = None) -> None:
        self.prefix = prefix
        macros = f"P={prefix},DET={image_channel},POINTS={points}"
        database = files("ptychostream.db") / "beamline.db"
        names = re.findall(r'^record\(\w+, "\$\(P\)(\w+)"\)', database.read_text(encoding="utf-8"), re.MULTILINE)
        self._channels: dict[str, pva.Channel] = {}
        environment = dict(os.environ)
        if ca_port is not None:
            environment["EPICS_CAS_SERVER_PORT"] = str(ca_port)
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the child
        if self._answers():
            self._log.close()
            raise StreamError(
                f"another beamline serves {prefix}Start",
                where="scan records",
                remedy="stop that one, or give this one another --prefix",
            )
        # The IOC lives until its stdin closes, so it ends with this process, however that ends; Ctrl-C is for us alone.
        self._ioc = subprocess.Popen(
            [sys.executable, "-m", "pvxslibs.ioc", "-m", macros, "-d", str(database)],
            stdin=subprocess.PIPE,
            stdout=self._log,
            stderr=subprocess.STDOUT,
            env=environment,
            start_new_session=True,
        )
        self._watched: list[tuple[pva.Channel, pva.PvObjectQueue, Callable[[], None]]] = []
        self._watcher: threading.Thread | None = None
        self._closing = threading.Event()
        try:
            self._wait_until_up()
            self._connect(names)
        except BaseException:
            self.close()
            raise

    def _wait_until_up(self) -> None:
        deadline = time.monotonic() + START_TIMEOUT_S
        while True:
            if self._ioc.poll() is not None:
                raise self._error(f"the IOC ended with {self._ioc.returncode}:\n{self._output()}")
            if time.monotonic() > deadline:
                raise self._error(f"the IOC does not answer within {START_TIMEOUT_S:g} s:\n{self._output()}")
            if self._answers():
                return

    def _answers(self) -> bool:
        """Whether the records can be read."""
        # a new channel each time, because an old one searches less and less often
        probe = pva.Channel(self.prefix + "Start", pva.PVA)
        probe.setTimeout(_PROBE_S)
        try:
            probe.get("field(value)")
        except pva.PvaException:
            return False
        return True

    def _connect(self, names: list[str]) -> None:
        """Connect to all records at the same time, because each connection takes a quarter of a second."""
        self._channels = {name: pva.Channel(self.prefix + name, pva.PVA) for name in names}
        for channel in self._channels.values():
            channel.setTimeout(_TIMEOUT_S)
        with ThreadPoolExecutor(len(names)) as threads:
            list(threads.map(self.get, names))

    def get(self, name: str) -> Any:
        """The value of a record. A choice is its number."""
        try:
            value = self._channels[name].get("field(value)")["value"]
        except pva.PvaException as error:
            raise self._error(f"{name} cannot be read: {error}") from error
        return value["index"] if isinstance(value, dict) else value

    def put(self, name: str, value: float | int | str | list[float]) -> None:
        """Write a number, a choice by its number, a text, or a waveform."""
        if isinstance(value, str) and name in _SHORT_STRINGS:
            value = value[:_STRING_CHARACTERS]
        try:
            self._channels[name].put(int(value) if isinstance(value, IntEnum) else value)
        except pva.PvaException as error:
            raise self._error(f"{name} cannot be written: {error}") from error

    def watch(self, commands: Mapping[str, Callable[[], None]]) -> None:
        """Call `commands[name]` in a separate thread each time a client writes 1 to the record `name`."""
        for name, act in commands.items():
            # Updates are queued. A callback and a put of the same process would wait for each other.
            updates = pva.PvObjectQueue(_COMMANDS_QUEUED)
            channel = pva.Channel(self.prefix + name, pva.PVA)
            channel.qMonitor(updates, "field(value)")
            self._watched.append((channel, updates, act))
        self._watcher = threading.Thread(target=self._watch, name="scan commands", daemon=True)
        self._watcher.start()

    def _watch(self) -> None:
        while not self._closing.wait(_COMMAND_POLL_S):
            for _, updates, act in self._watched:
                while len(updates):
                    if updates.get()["value"]["index"] == 1:
                        act()

    def close(self) -> None:
        """End the IOC."""
        self._closing.set()
        if self._watcher is not None:
            self._watcher.join()
        for channel, _, _ in self._watched:
            channel.stopMonitor()
        self._watched.clear()
        self._channels.clear()
        if self._ioc.stdin is not None:
            self._ioc.stdin.close()
        stop(self._ioc, patience_s=5.0)
        self._log.close()

    def __enter__(self) -> ScanRecords:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _output(self) -> str:
        self._log.seek(0)
        return self._log.read().decode(errors="replace")[-2000:]

    def _error(self, what: str) -> StreamError:
        return StreamError(
            what,
            where=f"scan records {self.prefix}",
            remedy="check the EPICS_* variables, and that no other IOC has these names or ports",
        )


_SHORT_STRINGS = {"ScanID_RBV", "ImagePVAName_RBV"}
