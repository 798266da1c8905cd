"""Starts programs that end with this process, and stops them with all that they have started."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Protocol

_log = logging.getLogger(__name__)
_LOOK_S = 0.05
_KILLED_S = 5.0


def child_command(module: str, arguments: Sequence[str]) -> list[str]:
    """The command line of `python -m module arguments…` as a child that ends with this process."""
    return [sys.executable, "-m", "ptychostream.processes.child", str(os.getpid()), module, *arguments]


class Program(subprocess.Popen[bytes]):
    """`python -m module arguments…` in a session of its own: a Ctrl-C at the terminal does not reach it.

    Parameters
    ----------
    module, arguments
        What is run; see `ptychostream.processes.child`.
    log
        File to which its output is appended; None: the output is discarded.
    environment
        Environment of the program; None: that of this process.

    Raises
    ------
    OSError
        It cannot be started, or `log` cannot be written.
    """

    def __init__(
        self,
        module: str,
        arguments: Sequence[str],
        log: Path | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        with (log or Path(os.devnull)).open("ab") as output:
            super().__init__(
                child_command(module, arguments),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**(os.environ if environment is None else environment), "PYTHONUNBUFFERED": "1"},
                start_new_session=True,
            )


class GroupLeader(Protocol):
    """A process that leads a process group. The names mean what they mean in `subprocess.Popen`."""

    pid: int
    returncode: int | None

    def poll(self) -> int | None: ...

    def wait(self, timeout: float | None = None) -> int: ...


def stop(*processes: GroupLeader, patience_s: float) -> bool:
    """End processes and their groups: SIGTERM to all of them, and SIGKILL to those that run after `patience_s`.

    Returns
    -------
    bool
        Whether all of them ended without SIGKILL.
    """
    for process in processes:
        if process.poll() is None:
            _send(process, signal.SIGTERM)
    deadline = time.monotonic() + patience_s
    in_time = True
    for process in processes:
        try:
            process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            in_time = False
            _log.warning("process %d did not end within %.0f s: killed", process.pid, patience_s)
        if process.returncode != 0:  # it may also have left children
            _send(process, signal.SIGKILL)
            process.wait()
            _await_end(process.pid)
    return in_time


def _send(process: GroupLeader, number: int) -> None:
    """Send a signal to the process's group, or to the process alone while it does not lead a group yet."""
    try:
        os.killpg(process.pid, number)
    except ProcessLookupError:
        if process.returncode is None:
            with suppress(ProcessLookupError):
                os.kill(process.pid, number)


def _await_end(group: int) -> None:
    """Wait until no process of a killed group is left. This process is not the parent of all of them."""
    deadline = time.monotonic() + _KILLED_S
    with suppress(ProcessLookupError):
        while time.monotonic() < deadline:
            os.killpg(group, 0)
            time.sleep(_LOOK_S)
