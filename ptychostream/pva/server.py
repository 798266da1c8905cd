"""A second PVA server, of p4p, in a process in which another server serves the records."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

from p4p.server import Server, StaticProvider

PORT = "EPICS_PVAS_SERVER_PORT"


def serve(providers: Sequence[StaticProvider], port: int = 0) -> Server:
    """Serve the channels of all providers at one TCP port; 0: any free one."""
    return Server(providers, conf=at_port(os.environ, port), useenv=False)


def port_of(server: Server) -> int:
    """The TCP port that a server has."""
    return int(server.conf()[PORT])


def at_port(environment: Mapping[str, str], port: int) -> dict[str, str]:
    """The PVA settings of `environment` with another port of the server.

    They replace the complete environment. Otherwise p4p would add the environment's port to its interfaces before it
    reads the port from here.
    """
    own = {name: value for name, value in environment.items() if name.startswith("EPICS_PVA")}
    return {**own, PORT: str(port), "EPICS_PVA_SERVER_PORT": str(port)}
