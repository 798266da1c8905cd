"""Every update of a PVA channel into a file, exactly as it came."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pydantic import Field

from ptychostream.config import Settings
from ptychostream.pva.raw_client import RawChannel
from ptychostream.pva.raw_updates import RawWriter


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
        How many.
    overruns
        How many of them stand for more than one, because a queue was full.
    connections
        How often the channel was there.
    seconds
        From the first update to the last.
    bytes
        Of the values.
    """

    updates: int
    overruns: int
    connections: int
    seconds: float
    bytes: int


def record_raw(
    channel: str,
    path: str | Path,
    settings: RawRecordSettings,
    stop: threading.Event,
    on_update: Callable[[int, float], None] | None = None,
) -> RawRecorded:
    """Append the updates of `channel` to `path` until `stop` is set or the settings say enough.

    A channel that is not there is waited for, also when it goes away in between.

    Parameters
    ----------
    on_update
        Called with (number of the update from 0, POSIX time).

    Raises
    ------
    StreamError
        When the server refuses.
    ScanFileError
        When the file is another's or cannot be written.
    """
    updates = overruns = size = 0
    first = last = 0
    source = RawChannel(channel, settings.queue_size, stop, settings.seconds)
    with RawWriter(path, channel, sync_s=settings.sync_s) as writer:
        for update in source:
            writer.write(update)
            last = update.time_ns
            first = first or last
            overruns += bool(update.overrun)
            size += len(update.value)
            if on_update is not None:
                on_update(updates, last * 1e-9)
            updates += 1
            if updates == settings.frames:
                break
    return RawRecorded(updates, overruns, source.connections, (last - first) * 1e-9, size)
