"""Starts the processes of a cluster, starts again what dies, ends them all."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from ptychostream.cluster.commands import Command
from ptychostream.errors import ConfigError

log = logging.getLogger(__name__)

_CHILD = "ptychostream.processes.child"
_LOOK_S = 0.2
_STOP_S = 20.0
_FIRST_WAIT_S = 1.0
_LONGEST_WAIT_S = 30.0
_STABLE_S = 60.0


def back_off_s(deaths: int) -> float:
    """How long to wait before the next start, after so many deaths in a row."""
    return min(_FIRST_WAIT_S * 2.0 ** max(0, deaths - 1), _LONGEST_WAIT_S)


class Managed:
    """One process that is kept alive.

    Parameters
    ----------
    command
        What it runs.
    log_path
        Gets its output, appended.
    """

    def __init__(self, command: Command, log_path: Path) -> None:
        self.command = command
        self.log_path = log_path
        self.restarts = 0
        """Times that it was started again."""
        self.status: int | None = None
        """Of its last end."""
        self._deaths = 0  # in a row, without a stable time between
        self._popen: subprocess.Popen[bytes] | None = None
        self._started = 0.0
        self._due = 0.0

    @property
    def pid(self) -> int | None:
        """Of the process that runs."""
        return self._popen.pid if self._popen is not None else None

    @property
    def running(self) -> bool:
        return self._popen is not None

    def uptime_s(self, now: float) -> float:
        """How long it has run; 0 when it does not."""
        return now - self._started if self._popen is not None else 0.0

    def start(self, now: float) -> None:
        """Start it."""
        with self.log_path.open("ab") as output:
            self._popen = subprocess.Popen(
                [sys.executable, "-m", _CHILD, str(os.getpid()), self.command.module, *self.command.arguments],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, "PYTHONUNBUFFERED": "1", **self.command.environment},
                start_new_session=True,  # a Ctrl-C at the terminal is the parent's to hand on, in its order
            )
        self._started = now
        log.info("%s: started, process %d", self.command.name, self._popen.pid)

    def look(self, now: float) -> None:
        """See whether it still runs; start it again when that is due."""
        if self._popen is None:
            if now >= self._due:
                self.restarts += 1
                self.start(now)
            return
        status = self._popen.poll()
        if status is None:
            return
        self.status, self._popen = status, None
        self._deaths = 1 if now - self._started > _STABLE_S else self._deaths + 1
        wait = back_off_s(self._deaths)
        self._due = now + wait
        log.error(
            "%s: ended with status %d, starts again in %.0f s; see %s", self.command.name, status, wait, self.log_path
        )

    def send(self, number: int) -> None:
        """Send it a signal."""
        if self._popen is not None and self._popen.poll() is None:
            self._popen.send_signal(number)

    def wait(self, timeout_s: float) -> bool:
        """Wait for its end, kill it after the time; False when it had to be killed."""
        if self._popen is None:
            return True
        try:
            self.status = self._popen.wait(timeout_s)
            clean = True
        except subprocess.TimeoutExpired:
            log.warning("%s: did not end within %.0f s: killed", self.command.name, timeout_s)
            self._popen.kill()
            self.status = self._popen.wait()
            clean = False
        self._popen = None
        return clean


class Supervisor:
    """The processes of one host.

    Parameters
    ----------
    commands
        In the order in which they are started; they are ended in the reverse order.
    log_dir
        Folder of their logs; made if need be.

    Raises
    ------
    ConfigError
        The folder cannot be made.
    """

    def __init__(self, commands: Sequence[Command], log_dir: Path) -> None:
        try:
            log_dir.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            what = f"cannot be made: {error.strerror or error}"
            raise ConfigError(what, where=str(log_dir), remedy="give log_dir a folder that can be written") from error
        self.processes = [Managed(command, log_dir / f"{command.name.replace(' ', '-')}.log") for command in commands]

    def run(self, stop: threading.Event, show: Callable[[Sequence[Managed]], None]) -> int:
        """Keep them alive until `stop`; `show` is called after every look. 0 when all ended cleanly."""
        try:
            for process in self.processes:
                process.start(time.monotonic())
            show(self.processes)
            while not stop.wait(_LOOK_S):
                for process in self.processes:
                    process.look(time.monotonic())
                show(self.processes)
        finally:
            clean = self.stop()
            show(self.processes)
        return 0 if clean else 1

    def stop(self) -> bool:
        """End them: who takes frames first, then who adds up. False when one had to be killed."""
        clean = True
        for name in dict.fromkeys(process.command.name.split()[0] for process in reversed(self.processes)):
            ending = [process for process in self.processes if process.command.name.split()[0] == name]
            for process in ending:
                process.send(signal.SIGTERM)
            deadline = time.monotonic() + _STOP_S
            for process in ending:
                clean = process.wait(max(0.0, deadline - time.monotonic())) and clean
        return clean
