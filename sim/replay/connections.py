"""Find the clients of this process's PVA server, and whether all data was sent to them.

pvaccess tells a server nothing about its subscribers, but the kernel does. A client that connected and then sent
nothing for a while has made all its requests, including its monitor. If a connection has nothing left to send and sent
nothing for a while, the server's queue is empty. This works on Linux only.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import struct
import termios
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from ptychostream.errors import StreamError

QUIET_S = 0.5
"""Time without data after which a client counts as subscribed, or its queue as empty, seconds."""

POLL_S = 0.05

# struct tcp_info of linux/tcp.h: 8 bytes of state, then unsigned ints
_SINCE = (8 + 4 * 9, 8 + 4 * 11)  # tcpi_last_data_sent and tcpi_last_data_recv, milliseconds


class Connection(NamedTuple):
    """One client: seconds since it last sent and received data, and bytes that the kernel has not delivered yet."""

    since_received_s: float
    since_sent_s: float
    unsent: int


def connections() -> list[Connection]:
    """The established connections to the listening sockets of this process.

    Raises
    ------
    StreamError
        The system is not Linux.
    """
    if not hasattr(socket, "TCP_INFO"):
        raise StreamError(
            "this system does not report connections", where="PVA server", remedy="wait for a PV: --wait-for PV"
        )
    ports, accepted = set(), []
    for own in _sockets():
        with own:
            port = own.getsockname()[1]
            if own.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
                ports.add(port)
                continue
            with contextlib.suppress(OSError):  # closed by the other side meanwhile
                own.getpeername()
                info = own.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 64)
                sent, received = (struct.unpack_from("I", info, at)[0] / 1e3 for at in _SINCE)
                unsent = struct.unpack("i", fcntl.ioctl(own.fileno(), termios.TIOCOUTQ, b"\0" * 4))[0]
                accepted.append((port, Connection(received, sent, unsent)))
    return [connection for port, connection in accepted if port in ports]


def _sockets() -> Iterator[socket.socket]:
    """Duplicates of this process's TCP sockets, to be closed by the caller."""
    folder = Path("/proc/self/fd")
    for link in folder.iterdir():
        with contextlib.suppress(OSError):
            if link.readlink().name.startswith("socket:"):
                own = socket.socket(fileno=os.dup(int(link.name)))
                if own.type == socket.SOCK_STREAM and own.family in (socket.AF_INET, socket.AF_INET6):
                    yield own
                else:
                    own.close()


def wait_for_client(stop: threading.Event, timeout_s: float | None = None) -> bool:
    """Wait until a client has subscribed. Returns False if `stop` was set first.

    Raises
    ------
    StreamError
        No client subscribed within `timeout_s`.
    """
    deadline = None if timeout_s is None else time.monotonic() + timeout_s
    while not any(connection.since_received_s >= QUIET_S for connection in connections()):
        if stop.wait(POLL_S):
            return False
        if deadline is not None and time.monotonic() > deadline:
            raise StreamError(
                f"no client subscribed within {timeout_s:g} s",
                where="PVA server",
                remedy="start the client, or check EPICS_PVA_ADDR_LIST on both sides",
            )
    return True


def drain(stop: threading.Event, timeout_s: float = 10.0) -> bool:
    """Wait until all data was sent to every client. Returns False if `stop` was set or the time passed first."""
    deadline = time.monotonic() + timeout_s
    while any(connection.unsent or connection.since_sent_s < QUIET_S for connection in connections()):
        if stop.wait(POLL_S) or time.monotonic() > deadline:
            return False
    return True
