"""The beamline's scan records, on an EPICS IOC of its own: a child process with a C database."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from enum import IntEnum
from importlib.resources import files
from types import TracebackType
from typing import Any

import pvaccess as pva

from ptychostream.errors import StreamError

START_TIMEOUT_S = 30.0
_POLL_S = 0.1
_TIMEOUT_S = 5.0
_STRING_CHARACTERS = 39


class ScanRecords:
    """The records of `db/beamline.db`, read and written over PVA.

    Parameters
    ----------
    prefix
        Of every record, with its colon.
    image_channel
        What `ImagePVAName_RBV` says.
    points
        Length of the position waveforms.
    ca_port
        The IOC's Channel Access port; None: `EPICS_CAS_SERVER_PORT` or 5064. Two IOCs on one host need two.
    """

    def __init__(self, prefix: str, image_channel: str, points: int, ca_port: int | None = None) -> None:
        self.prefix = prefix
        macros = f"P={prefix},DET={image_channel},POINTS={points}"
        database = files("ptychostream.db") / "beamline.db"
        names = re.findall(r'^record\(\w+, "\$\(P\)(\w+)"\)', database.read_text(encoding="utf-8"), re.MULTILINE)
        self._channels = {name: pva.Channel(prefix + name, pva.PVA) for name in names}
        environment = dict(os.environ)
        if ca_port is not None:
            environment["EPICS_CAS_SERVER_PORT"] = str(ca_port)
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the child
        # The IOC lives until its stdin closes, so it ends with this process, however that ends.
        self._ioc = subprocess.Popen(
            [sys.executable, "-m", "pvxslibs.ioc", "-m", macros, "-d", str(database)],
            stdin=subprocess.PIPE,
            stdout=self._log,
            stderr=subprocess.STDOUT,
            env=environment,
        )
        self._monitored: list[pva.Channel] = []
        try:
            self._wait_until_up()
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
            try:
                self._connect(timeout_s=0.5)
                break
            except pva.PvaException:
                time.sleep(_POLL_S)
        for channel in self._channels.values():
            channel.setTimeout(_TIMEOUT_S)

    def _connect(self, timeout_s: float) -> None:
        """Connect to every record at once: one after the other they take a quarter of a second each."""

        def ask(channel: pva.Channel) -> None:
            channel.setTimeout(timeout_s)
            channel.get("field(value)")

        with ThreadPoolExecutor(len(self._channels)) as threads:
            list(threads.map(ask, self._channels.values()))

    def get(self, name: str) -> Any:
        """The record's value; a choice as its number."""
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

    def on_command(self, name: str, act: Callable[[], None]) -> None:
        """Call `act`, in a thread of pvaccess, each time somebody writes 1 to the record `name`."""
        channel = self._channels[name]
        ready = threading.Event()

        def updated(update: pva.PvObject) -> None:
            ready.set()
            if update["value"]["index"] == 1:
                act()

        channel.monitor(updated, "field(value)")
        self._monitored.append(channel)
        if not ready.wait(START_TIMEOUT_S):
            raise self._error(f"{name} cannot be monitored")

    def close(self) -> None:
        """End the IOC."""
        for channel in self._monitored:
            channel.stopMonitor()
        self._monitored.clear()
        self._channels.clear()
        if self._ioc.stdin is not None:
            self._ioc.stdin.close()
        try:
            self._ioc.wait(5)
        except subprocess.TimeoutExpired:
            self._ioc.kill()
            self._ioc.wait()
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
