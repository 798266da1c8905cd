"""The commands for a second terminal: the environment, a Channel Access client and a PV Access client."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

_NAMES = (
    "EPICS_CA_ADDR_LIST",
    "EPICS_CA_AUTO_ADDR_LIST",
    "EPICS_PVA_ADDR_LIST",
    "EPICS_PVA_AUTO_ADDR_LIST",
    "EPICS_PVA_BROADCAST_PORT",
)


def second_terminal(environment: Mapping[str, str], prefix: str, by_ca: Sequence[str], by_pva: Sequence[str]) -> str:
    """Lines that monitor records of `prefix`, some over Channel Access and some over PV Access."""
    exports = " ".join(f"{name}='{environment[name]}'" for name in _NAMES)
    interpreter = Path(sys.executable)
    monitor = interpreter.parent / "caproto-monitor"
    return "\n".join(
        [
            f"    export {exports}",
            f"    {monitor} {' '.join(prefix + name for name in by_ca)}",
            f"    {interpreter} -m p4p.client.cli monitor {' '.join(prefix + name for name in by_pva)}",
        ]
    )
