"""Writes every update of a PVA channel to a file, exactly as it came."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pydantic import Field

from ptychostream.config import Settings
from ptychostream.rawpva.raw_client import RawChannel
from ptychostream.rawpva.raw_gaps import missed_between
from ptychostream.rawpva.raw_updates import RawWriter
from ptychostream.rawpva.raw_values import WireUpdate


class RawRecordSettings(Settings):
    """How a channel is recorded.

    Attributes
    ----------
    queue_size
        Updates that the server is asked to hold for us.
    frames
        After how many updates to end.
    seconds
        After how long to end. With neither: when stopped.
    sync_s
        How often what came is brought to the disk, seconds.
    """

    queue_size: int = Field(2000, ge=2)
    frames: int | None = Field(None, ge=1)
    seconds: float | None = Field(None, gt=0)
    sync_s: float = Field(1.0, gt=0)


@dataclass(frozen=True)
class RawRecorded:
    """What was recorded.

    Attributes
    ----------
    updates
        Number of updates.
    overruns
        Number of updates that replaced others, because a queue was full.
    missed
        Number of replaced updates: by the uniqueIds of NTNDArrays, else at least one each.
    connections
        Number of connections to the channel.
    seconds
        From the first update to the last.
    bytes
        Bytes of the updates, as they came.
    """

    updates: int
    overruns: int
    missed: int
    connections: int
    seconds: float
    bytes: int


def record_raw(
    channel: str,
    path: str | Path,
    settings: RawRecordSettings,
    stop: threading.Event,
    on_updates: Callable[[int, float], None] | None = None,
) -> RawRecorded:
    """Append the updates of `channel` to `path` until `stop` is set or the settings say enough.

    A channel that is not there is waited for, also when it goes away in between.

    Parameters
    ----------
    on_updates
        Called with (updates so far, POSIX time) as some came.

    Raises
    ------
    StreamError
        The server refuses the subscription.
    ScanFileError
        The file holds something else, or cannot be written.
    """
    updates = overruns = missed = size = 0
    first = last = 0
    before: WireUpdate | None = None
    source = RawChannel(channel, settings.queue_size, stop, settings.seconds)
    with RawWriter(path, channel, sync_s=settings.sync_s) as writer:
        for came in source:
            wanted = came.updates if settings.frames is None else came.updates[: settings.frames - updates]
            writer.write_as_came(came._replace(updates=wanted))
            first, last = first or wanted[0].time_ns, wanted[-1].time_ns
            for update in wanted:
                size += len(update.body)
                if update.overrun:
                    overruns += 1
                    missed += missed_between(came.type, before, update)
                before = update
            updates += len(wanted)
            if on_updates is not None:
                on_updates(updates, last * 1e-9)
            if updates == settings.frames:
                break
    return RawRecorded(updates, overruns, missed, source.connections, (last - first) * 1e-9, size)
