"""An isolated EPICS on loopback for one test module: free ports, child processes, CA and PVA clients.

    env = EpicsEnv()
    ioc = env.start_ioc("--prefix", "t:", "--input-pv", "t:det:Image", "--engine", "none")
    env.caput("t:DoseScale", 2.0, wait=True)
    assert env.caget("t:DoseScale_RBV") == 2.0
    ioc.stop()

Every process that is started with `env.server_env()` has a CA port of its own; all share one PVA
broadcast port, so that two PVA servers on loopback find each other.
"""

from __future__ import annotations

import contextlib
import functools
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import caproto.sync.client
from busy import busy_threads
from standstill import Deadline, standstill

from ptychostream.processes.loopback import free_ports, loopback_environment

# It asks twice within its time: too seldom on a busy machine, where a server that starts may miss a datagram.
caproto.sync.client.search = functools.partial(caproto.sync.client.search, max_retries=20)


_LONG_S = 5.0
"""Who waits so long for an answer is surprised not to get it."""


def free_port() -> int:
    """A port that is free for TCP and UDP on loopback."""
    return free_ports(1)[0]


def wait_until(condition: Callable[[], Any], timeout: float, what: str, interval: float = 0.05) -> Any:
    """The first true value of `condition()`; fails with `what` (a text, or a callable for one) after `timeout` s.

    Time in which the machine stood still does not count.
    """
    deadline = Deadline(timeout)
    while True:
        value = condition()
        if value:
            return value
        if deadline.passed:
            raise AssertionError(f"not within {timeout} s: {what() if callable(what) else what}\n{busy_threads()}")
        time.sleep(interval)


class Process:
    """A child with its output in a file, ended by `stop()`."""

    def __init__(self, command: list[str], env: dict[str, str], cwd: str | Path | None = None) -> None:
        self.log = Path(tempfile.mkstemp(prefix="ptychostream-", suffix=".log")[1])
        with self.log.open("wb") as output:
            self.popen = subprocess.Popen(
                command, env=env, cwd=cwd, stdin=subprocess.PIPE, stdout=output, stderr=subprocess.STDOUT
            )

    @property
    def output(self) -> str:
        return self.log.read_text(errors="replace")

    def wait(self, timeout: float = 20.0) -> int:
        return self.popen.wait(timeout)

    def stop(self, number: int = signal.SIGTERM, timeout: float = 20.0) -> int:
        """Send the signal, return the exit code; SIGKILL after `timeout`."""
        if self.popen.poll() is None:
            self.popen.send_signal(number)
        try:
            return self.popen.wait(timeout)
        except subprocess.TimeoutExpired:
            self.popen.kill()
            self.popen.wait()
            raise AssertionError(f"did not stop within {timeout} s:\n{self.output}") from None
        finally:
            if self.popen.stdin:
                self.popen.stdin.close()

    def __enter__(self) -> Process:
        return self

    def __exit__(self, *_: object) -> None:
        if self.popen.poll() is None:
            self.popen.kill()
        self.popen.wait()
        if self.popen.stdin:
            self.popen.stdin.close()
        self.log.unlink(missing_ok=True)


IOC_FOLDER = tempfile.gettempdir()
"""Working directory of an IOC: its records may name files there, and the tests' files are below it."""


class EpicsEnv:
    """Ports on loopback, and the environment that points servers and clients at them.

    Parameters
    ----------
    ca_servers
        How many CA servers may be started with `server_env()`; each has a port of its own.
    """

    def __init__(self, ca_servers: int = 4) -> None:
        self.broadcast_port = free_port()
        self._ca_ports = [free_port() for _ in range(ca_servers)]
        self._next_ca = iter(list(self._ca_ports))
        self.env: dict[str, str] = loopback_environment(self._ca_ports, self.broadcast_port)
        """For a client, or a server of PVA alone."""
        self.epics = {name: value for name, value in self.env.items() if name.startswith("EPICS_")}
        self._pva: Any = None

    def server_env(self) -> dict[str, str]:
        """The environment of one more server process, with CA and PVA ports of its own."""
        pva = str(free_port())
        return {
            **self.env,
            "EPICS_CAS_SERVER_PORT": str(next(self._next_ca)),
            "EPICS_PVAS_SERVER_PORT": pva,
            "EPICS_PVA_SERVER_PORT": pva,
        }

    def cluster_env(self) -> dict[str, str]:
        """That of a process whose children serve too: a CA port for one of them, any PVA port for each."""
        return {**self.server_env(), "EPICS_PVAS_SERVER_PORT": "0", "EPICS_PVA_SERVER_PORT": "0"}

    @contextlib.contextmanager
    def active(self) -> Iterator[None]:
        """This process's own environment set to `env`, for clients that read it (caproto, pvapy, libca)."""
        before = {name: value for name, value in os.environ.items() if name.startswith("EPICS_")}
        try:
            for name in before:
                del os.environ[name]
            os.environ.update(self.epics)
            yield
        finally:
            for name in self.epics:
                os.environ.pop(name, None)
            os.environ.update(before)

    # ------------------------------------------------------------ processes

    def start(self, *command: str, env: dict[str, str] | None = None, cwd: str | Path | None = None) -> Process:
        """Any command; `sys.executable` is the interpreter to give."""
        return Process(list(command), env or self.env, cwd)

    def start_ioc(
        self,
        *arguments: str,
        wait: str = "live",
        timeout: float = 120.0,
        prefix: str | None = None,
        env: dict[str, str] | None = None,
    ) -> Process:
        """`ptychostream ioc *arguments`.

        Returns when it is "up" (HEARTBEAT answers), "live" (a model or the plain engine runs, a detector may still be
        missing) or "ready" (Ready_RBV is 1: the detector is connected as well). The first IOCs of a fresh clone compile
        the kernels, which takes 20 s of processor time.
        """
        asked = {"up": ("HEARTBEAT", None), "live": ("ModelState_RBV", 4), "ready": ("Ready_RBV", 1)}
        record, wanted = asked[wait]
        if prefix is None:
            prefix = arguments[arguments.index("--prefix") + 1]
        command = (sys.executable, "-m", "ptychostream", "ioc", *arguments)
        process = self.start(*command, env=env or self.server_env(), cwd=IOC_FOLDER)

        def up() -> bool:
            if process.popen.poll() is not None:
                raise AssertionError(f"the IOC ended with {process.popen.returncode}:\n{process.output}")
            try:
                value = self.caget(f"{prefix}{record}", timeout=0.5)
                return wanted is None or bool(value == wanted)
            except TimeoutError:
                return False

        try:
            wait_until(up, timeout, lambda: f"IOC {prefix} up:\n{process.output}")
        except BaseException:
            process.__exit__()
            raise
        return process

    # ------------------------------------------------------------ clients

    def caget(self, pv: str, timeout: float = 15.0, **options: Any) -> Any:
        """Over CA by caproto: number, text or list; enumerations as numbers. TimeoutError when nothing answers."""
        with self.active():
            answer = self._read(pv, timeout, options)
        if answer.data_type in (caproto.ChannelType.STRING,):
            values = [bytes(value).decode() for value in answer.data]
        elif answer.data_type == caproto.ChannelType.CHAR:
            return bytes(bytearray(int(value) & 0xFF for value in answer.data)).split(b"\0")[0].decode()
        else:
            values = [value.item() if hasattr(value, "item") else value for value in answer.data]
        return values[0] if len(values) == 1 else values

    @staticmethod
    def _read(pv: str, timeout: float, options: dict[str, Any]) -> Any:
        while True:
            lost_s = standstill.lost_s
            try:
                return caproto.sync.client.read(pv, timeout=timeout, repeater=False, force_int_enums=True, **options)
            except caproto.CaprotoTimeoutError as error:
                if standstill.lost_s == lost_s:
                    told = f"\n{busy_threads()}" if timeout >= _LONG_S else ""
                    raise TimeoutError(f"{pv} does not answer{told}") from error

    def caput(self, pv: str, value: Any, wait: bool = True, timeout: float = 20.0) -> None:
        """Over CA by caproto; `wait` is a put-callback. PermissionError when it is refused."""
        if isinstance(value, str):
            value = value.encode() + b"\0" if pv.endswith("$") else value
        with self.active():
            answer = caproto.sync.client.write(pv, value, notify=wait, timeout=timeout, repeater=False)
        if wait and not answer.status.success:
            raise PermissionError(f"{pv}: {answer.status.description}")

    @property
    def pva(self) -> Any:
        """A p4p client context (get, put, monitor)."""
        if self._pva is None:
            from p4p.client.thread import Context

            self._pva = Context("pva", conf=self.epics, useenv=False, nt=False)
        return self._pva

    def pvget(self, pv: str, timeout: float = 15.0) -> Any:
        """The whole structure over PVA by p4p (`.value`, `["alarm.severity"]`)."""
        return self.pva.get(pv, timeout=timeout)

    def close(self) -> None:
        if self._pva is not None:
            self._pva.close()
            self._pva = None

    def __enter__(self) -> EpicsEnv:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
