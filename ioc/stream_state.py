"""What the diagnosis is given to look at."""

from __future__ import annotations

import time

from ptychostream.ioc.handlers import Parts
from ptychostream.plugins.diagnosis import StreamState
from ptychostream.plugins.flow.snapshot import Snapshot


def stream_state(parts: Parts, snapshot: Snapshot) -> StreamState:
    """The parts as they are now."""
    return StreamState(
        time=time.monotonic(),
        enabled=parts.stream.enabled,
        channel=parts.stream.channel,
        connected=parts.stream.connected,
        received=snapshot.received,
        stitched=snapshot.stitched,
        dropped=snapshot.dropped,
        waiting_position=snapshot.waiting_position,
        queue_used=snapshot.queue_used,
        busy_s=snapshot.busy_s,
        scan_active=snapshot.scan_active,
        positions=parts.positions.failure or f"the {parts.positions.name} source",
        message=snapshot.message,
        images=parts.images.failure,
        contradiction=parts.stream.contradiction[0],
        refusal=parts.stream.refusal,
    )
