"""Steps forked from a process that has loaded their libraries: the fork server of multiprocessing.

The server is started with an interpreter of its own, so it has none of the agent's threads and sockets. It loads the
modules once; a fork then takes milliseconds. What is loaded must start no thread and open no device (decision 12).
"""

from __future__ import annotations

import gc
import multiprocessing
import os
import runpy
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from multiprocessing import connection, forkserver
from multiprocessing.context import ForkServerProcess
from pathlib import Path

from ptychostream.processes.child import end_after

_LOAD_S = 300.0
_SERVER_LOST = 255  # how multiprocessing reports a child whose server was killed
_lock = threading.Lock()  # two threads must not read one exit status
_context = multiprocessing.get_context("forkserver")


class ForkedStep:
    """A step that was forked. It leads a process group: a `GroupLeader`."""

    def __init__(self, process: ForkServerProcess) -> None:
        assert process.pid is not None
        self.pid = process.pid
        self.returncode: int | None = None
        self._process = process

    def poll(self) -> int | None:
        if self.returncode is None:
            with _lock:
                status = self._process.exitcode
            self.returncode = -signal.SIGKILL if status == _SERVER_LOST else status
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        if self.poll() is None:
            connection.wait([self._process.sentinel], timeout)
        if (status := self.poll()) is None:
            raise subprocess.TimeoutExpired(str(self.pid), timeout or 0.0)
        return status


class ForkServer:
    """The server of this process; there can be only one at a time. It ends with this process.

    Parameters
    ----------
    modules
        What it loads. The steps load a module that is not found here.
    nice
        Niceness of the server while it loads.
    environment
        Variables that the server and its steps get besides those of this process.

    Raises
    ------
    OSError
        No process can be started.
    """

    def __init__(self, modules: Sequence[str], nice: int, environment: Mapping[str, str]) -> None:
        self._nice = nice
        self._environment = environment
        with _lock:
            forkserver.set_forkserver_preload([__name__, *modules])
            self._ensure_running()

    def start(self, words: Sequence[str], log: Path) -> ForkedStep:
        """Run `python -m words…` in a session of its own, with its output appended to `log`.

        Waits until the server has loaded its modules. A server that has died is started again.

        Raises
        ------
        OSError
            The server died meanwhile, or did not answer within 300 s and was killed.
        """
        process = _context.Process(target=_run, args=(list(words), str(log)), daemon=True)
        with _lock:
            self._ensure_running()
            too_late = threading.Timer(_LOAD_S, _kill)
            too_late.start()
            try:
                process.start()
            except EOFError as error:
                raise BrokenPipeError("the process that forks steps has died") from error
            finally:
                too_late.cancel()
        return ForkedStep(process)

    def close(self) -> None:
        """End the server, once no step runs."""
        with _lock:
            _kill()
            forkserver._forkserver._stop()  # type: ignore[attr-defined]  # there is no public way

    def _ensure_running(self) -> None:
        before = _pid()
        with _variables(self._environment):
            forkserver.ensure_running()
        if (server := _pid()) != before:
            level = max(self._nice, os.getpriority(os.PRIO_PROCESS, 0))
            os.setpriority(os.PRIO_PROCESS, server, level)


def _pid() -> int:
    """Process of the server; 0 where there is none."""
    return forkserver._forkserver._forkserver_pid or 0  # type: ignore[attr-defined]


def _kill() -> None:
    if server := _pid():
        with suppress(ProcessLookupError):
            os.kill(server, signal.SIGKILL)


@contextmanager
def _variables(values: Mapping[str, str]) -> Iterator[None]:
    """Set environment variables of this process, and restore them."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _run(words: list[str], log: str) -> None:
    """Run the step in the process that was forked."""
    os.setsid()
    gc.freeze()  # so that collections do not copy the memory that is shared with the server
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.close(output)
    agent = multiprocessing.parent_process()
    assert agent is not None
    end_after(agent.join)
    module, *_ = sys.argv = words
    runpy.run_module(module, run_name="__main__", alter_sys=True)
