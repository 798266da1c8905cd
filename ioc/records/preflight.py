"""What must be free before the IOC starts: its ports and its prefix."""

from __future__ import annotations

import errno
import logging
import os
import socket
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

from p4p import Value
from p4p.client.thread import Context, RemoteError

from ptychostream.errors import StreamError
from ptychostream.ioc.records.database import check_prefix

log = logging.getLogger(__name__)

IMAGES = "images_port"
"""Where `check_ports` finds the port of the images beside the environment's variables."""
_PORTS = (
    # what serves, the variables that set its port (the first that is set counts), its interfaces
    ("Channel Access", ("EPICS_CAS_SERVER_PORT", "EPICS_CA_SERVER_PORT"), "EPICS_CAS_INTF_ADDR_LIST"),
    ("PV Access", ("EPICS_PVAS_SERVER_PORT", "EPICS_PVA_SERVER_PORT"), "EPICS_PVAS_INTF_ADDR_LIST"),
    ("the images' PV Access", (IMAGES,), "EPICS_PVAS_INTF_ADDR_LIST"),
)
_PVA_PORT = 5075
"""Of a server to which nobody gives another."""
_OTHER_IOC_S = 0.5


@contextmanager
def checked(prefix: str, images_port: int = 0) -> Iterator[None]:
    """Check prefix and ports before the block, and while it runs ask the network whether the prefix is free.

    Raises
    ------
    ConfigError, StreamError
        See the functions below; the last at the block's end.
    """
    check_prefix(prefix)
    check_ports({**os.environ, IMAGES: str(images_port)})
    with ThreadPoolExecutor(1) as pool:
        free = pool.submit(check_prefix_is_free, prefix)
        yield
        free.result()


def check_ports(environment: Mapping[str, str]) -> None:
    """Refuse a server port that was asked for and is taken.

    EPICS's servers would take another port without a word, where clients that were given this one cannot find
    them. A port that nobody asked for may be shared as ever: clients find the server by broadcast.

    Raises
    ------
    StreamError
        Naming the port and the variable.
    """
    pva: set[int] = set()
    for server, variables, interfaces in _PORTS:
        variable = next((name for name in variables if environment.get(name, "").strip()), None)
        if variable is None:
            pva |= {_PVA_PORT} if server == "PV Access" else set()
            continue
        try:
            port = int(environment[variable])
        except ValueError:
            raise StreamError(f"port {environment[variable]!r}", where=variable, remedy="set it to a number") from None
        addresses = environment.get(interfaces, "").split() or ["0.0.0.0"]
        if port and (port in pva or any(_taken(address.partition(":")[0], port) for address in addresses)):
            raise StreamError(
                f"{server} port {port} is in use",
                where=variable,
                remedy=f"end the other server, or give {variable} another port and add it to the clients' address list",
            )
        if "PV Access" in server:
            pva.add(port)


def _taken(address: str, port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
            probe.listen(1)
        except OSError as error:
            return error.errno == errno.EADDRINUSE
        return False


def check_prefix_is_free(prefix: str) -> None:
    """Refuse a prefix that another IOC serves: clients would be sent to one or the other by chance.

    Raises
    ------
    StreamError
        Naming the prefix.
    """
    with Context("pva", nt=False) as context:
        answer = context.get(f"{prefix}HEARTBEAT", timeout=_OTHER_IOC_S, request="field(value)", throw=False)
    if not isinstance(answer, Value | RemoteError):
        return  # no server answers
    raise StreamError(
        f"another IOC serves {prefix}HEARTBEAT",
        where="prefix",
        remedy="end that IOC, or give this one another --prefix",
    )
