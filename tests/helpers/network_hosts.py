"""Hosts on this machine: network namespaces joined by a hub, for a test. Linux, root, Debian's iproute2.

Each host has a loopback of its own and an address in 10.77.0.0/16, which are seen inside the namespaces alone. A guard,
a process of its own, ends what runs in them and takes them down when the test ends, however it does.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

PREFIX = "ptychostream-"
_NAMES = Path("/run/netns")
_CLONE_NEWNET = 0x40000000
_SEND_BUFFER = "4096 16384 65536"  # a cut link is to hold seconds of frames, not minutes


def install() -> None:
    """See that `ip` is there. RuntimeError where it is not and cannot be had."""
    if shutil.which("ip") is not None:
        return
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        raise RuntimeError("no command ip: install iproute2, or run this as root on Debian")
    quiet = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for words in (["update"], ["install", "--yes", "--no-install-recommends", "iproute2"]):
        ended = subprocess.run(["apt-get", "-q", *words], env=quiet, capture_output=True, text=True, timeout=600)
        if ended.returncode:
            raise RuntimeError(f"apt-get {words[0]} failed: {ended.stdout[-1000:]}{ended.stderr[-1000:]}")


class Hosts:
    """The hosts, and the hub between them.

    Parameters
    ----------
    names
        Of the hosts, one letter each.
    routed
        Each host is in a subnet of its own, and the hub routes; else all are in one, and the hub is a bridge.
    """

    def __init__(self, names: Sequence[str], routed: bool) -> None:
        self._names = tuple(names)
        self._routed = routed
        self._prefix = f"{PREFIX}{os.getpid()}-"

    def address(self, host: str) -> str:
        """Of a host."""
        number = self._names.index(host) + 1
        return f"10.77.{number}.2" if self._routed else f"10.77.0.{number}"

    def start(self) -> None:
        """Make them. RuntimeError where that is not allowed."""
        hub = self._namespace("hub")
        for host in self._names:
            self._namespace(host)
        if self._routed:
            with entered(hub):
                Path("/proc/sys/net/ipv4/ip_forward").write_text("1")
        else:
            _ip("-n", hub, "link", "add", "bridge", "type", "bridge")
            _ip("-n", hub, "link", "set", "bridge", "up")
        for host in self._names:
            self._join(host, hub)

    def entered(self, host: str) -> contextlib.AbstractContextManager[None]:
        """This thread, and what it starts, are on a host."""
        return entered(self._prefix + host)

    def cut(self, host: str) -> None:
        """Pull the host's cable."""
        _ip("-n", f"{self._prefix}hub", "link", "set", f"to-{host}", "down")

    def restore(self, host: str) -> None:
        """Plug it in again."""
        _ip("-n", f"{self._prefix}hub", "link", "set", f"to-{host}", "up")

    def _namespace(self, host: str) -> str:
        name = self._prefix + host
        _ip("netns", "add", name)
        _ip("-n", name, "link", "set", "lo", "up")
        with entered(name):
            Path("/proc/sys/net/ipv4/tcp_wmem").write_text(_SEND_BUFFER)
        return name

    def _join(self, host: str, hub: str) -> None:
        name, port = self._prefix + host, f"to-{host}"
        _ip("-n", name, "link", "add", "eth0", "type", "veth", "peer", "name", port, "netns", hub)
        _ip("-n", name, "address", "add", f"{self.address(host)}/24", "broadcast", "+", "dev", "eth0")
        _ip("-n", name, "link", "set", "eth0", "up")
        if self._routed:
            gateway = self.address(host).rpartition(".")[0] + ".1"
            _ip("-n", hub, "address", "add", f"{gateway}/24", "dev", port)
            _ip("-n", hub, "link", "set", port, "up")
            _ip("-n", name, "route", "add", "default", "via", gateway)
        else:
            _ip("-n", hub, "link", "set", port, "master", "bridge", "up")


@contextlib.contextmanager
def hosts(names: Sequence[str], routed: bool = False) -> Iterator[Hosts]:
    """Hosts that can reach one another."""
    install()
    for name in namespaces(PREFIX):  # of a test whose guard was killed with it
        if not Path("/proc", name.removeprefix(PREFIX).partition("-")[0]).exists():
            remove(name)
    made = Hosts(names, routed)
    guard = subprocess.Popen(
        [sys.executable, __file__, f"{PREFIX}{os.getpid()}-"], stdin=subprocess.PIPE, start_new_session=True
    )
    assert guard.stdin is not None
    try:
        made.start()
        yield made
    finally:
        guard.stdin.close()  # the system closes it where this process is killed
        guard.wait(60)


@contextlib.contextmanager
def entered(name: str) -> Iterator[None]:
    """This thread in a network namespace; processes and threads that it starts are there too."""
    libc = ctypes.CDLL(None, use_errno=True)
    with Path("/proc/thread-self/ns/net").open() as before, (_NAMES / name).open() as there:
        _enter(libc, there.fileno())
        try:
            yield
        finally:
            _enter(libc, before.fileno())


def _enter(libc: ctypes.CDLL, namespace: int) -> None:
    if libc.setns(namespace, _CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "setns: a network namespace cannot be entered")


def namespaces(prefix: str) -> list[str]:
    """The named ones that begin so."""
    return sorted(path.name for path in _NAMES.glob(f"{prefix}*")) if _NAMES.exists() else []


def remove(name: str) -> None:
    """End what runs in a namespace, and take it down."""
    deadline = time.monotonic() + 20
    while pids := _ip("netns", "pids", name).split():
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)
        if time.monotonic() > deadline:
            raise RuntimeError(f"{name}: {pids} do not end")
        time.sleep(0.05)
    _ip("netns", "delete", name)


def _ip(*words: str) -> str:
    ended = subprocess.run(["ip", *words], capture_output=True, text=True, timeout=60)
    if ended.returncode:
        remedy = "making network namespaces needs root with CAP_SYS_ADMIN, and a kernel that has them"
        raise RuntimeError(f"ip {' '.join(words)}: {ended.stderr.strip()}; {remedy}")
    return ended.stdout


if __name__ == "__main__":
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    sys.stdin.read()
    for each in namespaces(sys.argv[1]):
        remove(each)
