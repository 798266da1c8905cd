"""EPICS on the loopback interface alone: free ports and the environment for the demo, benchmarks and tests.

Each set of processes has its own PVA port and CA port, so that it does not see other processes of the machine. Two CA
servers on one host need a port each; PVA servers share one broadcast port and choose their TCP ports themselves.
"""

from __future__ import annotations

import fcntl
import os
import socket
import tempfile
from collections import deque
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from random import SystemRandom

LOOPBACK = "127.0.0.1"
_MOST_RESERVED = 200
_reserved: deque[int] = deque()  # locks on the latest ports; they end with the process


def free_ports(count: int) -> list[int]:
    """`count` different ports that are free for TCP and UDP on 127.0.0.1 now.

    They are random and below the range of ephemeral ports, so that neither clients nor a second set of processes takes
    one before it is used.
    """
    random = SystemRandom()
    ports: list[int] = []
    with ExitStack() as held:
        while len(ports) < count:
            port = random.randrange(20000, 32000)
            tcp = held.enter_context(socket.socket(socket.AF_INET, socket.SOCK_STREAM))
            udp = held.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
            try:
                tcp.bind((LOOPBACK, port))
                udp.bind((LOOPBACK, port))
            except OSError:
                continue
            if _reserve(port):
                ports.append(port)
    return ports


def _reserve(port: int) -> bool:
    """Reserve a port among processes that use `free_ports`; False: another process has reserved it.

    Two Channel Access servers can share a UDP port, and clients then reach only one of them.
    """
    folder = Path(tempfile.gettempdir()) / f"ptychostream-ports-{os.getuid()}"
    folder.mkdir(exist_ok=True)
    lock = os.open(folder / str(port), os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        return False
    if len(_reserved) == _MOST_RESERVED:
        os.close(_reserved.popleft())
    _reserved.append(lock)
    return True


def loopback_environment(
    ca_ports: list[int], pva_broadcast_port: int, base: Mapping[str, str] | None = None
) -> dict[str, str]:
    """Environment of a process that speaks EPICS on loopback alone.

    Parameters
    ----------
    ca_ports
        Every CA server's port; the first is the one a server started with this environment takes.
    pva_broadcast_port
        Shared by every PVA server and client of the set.
    base
        The environment to start from, `os.environ` by default.
    """
    environment = {k: v for k, v in (base or os.environ).items() if not k.startswith("EPICS_")}
    environment.update(
        EPICS_CA_ADDR_LIST=" ".join(f"{LOOPBACK}:{port}" for port in ca_ports),
        EPICS_CA_AUTO_ADDR_LIST="NO",
        EPICS_CA_SERVER_PORT=str(ca_ports[0]),
        EPICS_CA_REPEATER_PORT=str(free_ports(1)[0]),
        EPICS_CAS_SERVER_PORT=str(ca_ports[0]),
        EPICS_CAS_INTF_ADDR_LIST=LOOPBACK,
        EPICS_CAS_BEACON_ADDR_LIST=LOOPBACK,
        EPICS_CAS_AUTO_BEACON_ADDR_LIST="NO",
        EPICS_CA_MAX_ARRAY_BYTES="100000000",
        EPICS_PVA_ADDR_LIST=LOOPBACK,
        EPICS_PVA_AUTO_ADDR_LIST="NO",
        EPICS_PVA_BROADCAST_PORT=str(pva_broadcast_port),
        EPICS_PVAS_BROADCAST_PORT=str(pva_broadcast_port),
        EPICS_PVAS_INTF_ADDR_LIST=LOOPBACK,
        EPICS_PVAS_BEACON_ADDR_LIST=LOOPBACK,
        EPICS_PVAS_AUTO_BEACON_ADDR_LIST="NO",
        EPICS_PVA_SERVER_PORT="0",
        EPICS_PVAS_SERVER_PORT="0",
    )
    return environment
