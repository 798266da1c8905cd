"""The compiled monitor of detector images, or p4p's monitor if this installation has no compiled one."""

from __future__ import annotations

import logging
from collections.abc import Callable

import p4p  # noqa: F401 - loads the libraries that the compiled module is linked to

from ptychostream.pva.monitors import Monitor, P4pMonitor

_log = logging.getLogger(__name__)

ArrayMonitor: Callable[[str, str], Monitor] | None
"""The compiled monitor, made from a channel's name and a pvRequest. None if it is not compiled for these libraries.

An update is a tuple (raw id, POSIX time in seconds, payload, pvData's ScalarType of the payload, rows, columns,
attributes by name). For a compressed array it has another member: the first four members of
`ptychostream.pva.reading.Packed`. For a frame of a region that is not the whole, unbinned and unreversed sensor it has
two more: those of `Packed` or None, and the region, see `ptychostream.frames.stream_watch`. The payload has the buffer
protocol and owns its memory. An update with another layout is a dictionary with the keys that
`ptychostream.pva.reading.decode_value` reads.
"""

try:
    from ptychostream.pva._array_monitor import ArrayMonitor
except ImportError as error:
    _why = str(error)
    ArrayMonitor = None


def receiver_kind() -> str:
    """The receiver of the detector's images: "compiled" or "p4p"."""
    return "p4p" if ArrayMonitor is None else "compiled"


def open_monitor(channel: str, request: str) -> Monitor:
    """Open the fastest available monitor of an NTNDArray channel. `decode_taken` decodes its updates."""
    if ArrayMonitor is None:
        _log.info("images of %s are received through p4p: no compiled receiver (%s)", channel, _why)
        return P4pMonitor(channel, request)
    _log.info("images of %s are received by the compiled receiver", channel)
    return ArrayMonitor(channel, request)
