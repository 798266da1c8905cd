"""A PVA server of p4p in a process whose records are served by another."""

from __future__ import annotations

import os
from collections.abc import Mapping

from p4p.server import Server, StaticProvider


def serve(provider: StaticProvider) -> Server:
    """Serve the provider's channels at any free port: the records' server has the port that was asked for."""
    return Server([provider], conf=any_port(os.environ), useenv=False)


def any_port(environment: Mapping[str, str]) -> dict[str, str]:
    """The PVA settings of `environment`, but any free port.

    They replace the environment as a whole: p4p would join the port that the environment gives to its interfaces
    before it reads the port given here.
    """
    own = {name: value for name, value in environment.items() if name.startswith("EPICS_PVA")}
    return {**own, "EPICS_PVAS_SERVER_PORT": "0", "EPICS_PVA_SERVER_PORT": "0"}
