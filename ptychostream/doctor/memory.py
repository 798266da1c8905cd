"""The memory that frames of this detector need while they wait."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from ptychostream.doctor.finding import Finding, ok, warn
from ptychostream.doctor.stream import SeenStream
from ptychostream.ioc.config.settings import IocSettings

_MIB = 1 << 20
_LEAST_S = 1.0
"""A queue that is full after a shorter time does not outlast a pause of the engine."""


def check_memory(seen: SeenStream, whole: IocSettings) -> Iterator[Finding]:
    """How many frames may wait, by number and by memory, and how long that lasts at the rate that was seen."""
    if not seen.images:
        return
    frame = seen.images[-1]
    size = math.prod(frame.shape) * np.dtype(frame.dtype).itemsize
    settings = whole.pipeline
    numbers = (whole.input.queue_size, settings.join_size, settings.queue_size)
    wanted = max(numbers)
    room = max(1, settings.waiting_bytes // size)
    told = (
        f"a frame takes {size / _MIB:.2f} MiB, {settings.waiting_bytes / _MIB:.0f} MiB in each place hold {room} frames"
    )
    live = seen.frames
    seconds = live[-1].arrived - live[0].arrived if len(live) > 1 else 0.0
    lasts = min(room, min(numbers)) * seconds / (len(live) - 1) if seconds > 0 else math.inf
    if math.isfinite(lasts):
        told += f", {lasts:.1f} s at this rate"
    if room >= wanted:
        yield ok("memory", f"{told}; the queues' {wanted} need {wanted * size / _MIB:.0f} MiB")
    elif lasts < _LEAST_S:
        remedy = "raise pipeline.queue_memory, or let the detector send a smaller region"
        yield warn("memory", f"{told}, fewer than the {wanted} of the queues", remedy)
    else:
        yield ok("memory", f"{told}, fewer than the {wanted} of the queues")
