"""The compiled monitor of detector images where this installation has it; p4p's elsewhere."""

from __future__ import annotations

import logging
from collections.abc import Callable

import p4p  # noqa: F401 - loads the libraries that the compiled module is linked to

from ptychostream.pva.monitors import Monitor, P4pMonitor

_log = logging.getLogger(__name__)

ArrayMonitor: Callable[[str, str], Monitor] | None
"""Made from a channel's name and a pvRequest; None where the module was not compiled, or for other libraries.

Its updates are tuples (raw id, POSIX time in seconds, payload, pvData's ScalarType of the payload, rows, columns,
attributes by name); those of compressed arrays have a member more, the first four of
`ptychostream.pva.reading.Packed`. The payload has the buffer protocol and owns its memory. An update of any other
layout is a dictionary with the keys that `ptychostream.pva.reading.decode_value` asks for.
"""

try:
    from ptychostream.pva._array_monitor import ArrayMonitor
except ImportError as error:
    _why = str(error)
    ArrayMonitor = None


def receiver_kind() -> str:
    """Which receiver takes the detector's images: "compiled" or "p4p"."""
    return "p4p" if ArrayMonitor is None else "compiled"


def open_monitor(channel: str, request: str) -> Monitor:
    """The fastest monitor of an NTNDArray channel that there is; see `decode_taken` for its updates."""
    if ArrayMonitor is None:
        _log.info("images of %s are received through p4p: no compiled receiver (%s)", channel, _why)
        return P4pMonitor(channel, request)
    _log.info("images of %s are received by the compiled receiver", channel)
    return ArrayMonitor(channel, request)
