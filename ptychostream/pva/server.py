"""A second PVA server, of p4p, in a process in which another server serves the records."""

from __future__ import annotations

import os
from collections.abc import Mapping

from p4p.server import Server, StaticProvider


def serve(provider: StaticProvider) -> Server:
    """Serve the provider's channels at any free port, because the records' server has the configured port."""
    return Server([provider], conf=any_port(os.environ), useenv=False)


def any_port(environment: Mapping[str, str]) -> dict[str, str]:
    """The PVA settings of `environment` with any free port.

    They replace the complete environment. Otherwise p4p would add the environment's port to its interfaces before it
    reads the port from here.
    """
    own = {name: value for name, value in environment.items() if name.startswith("EPICS_PVA")}
    return {**own, "EPICS_PVAS_SERVER_PORT": "0", "EPICS_PVA_SERVER_PORT": "0"}
