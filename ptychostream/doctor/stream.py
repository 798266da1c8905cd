"""Watches a detector's stream for some seconds: what came, when, and what could not be used."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from threading import Event
from typing import Any

from ptychostream.errors import FrameError
from ptychostream.pva.array_monitor import open_monitor
from ptychostream.pva.channel_reader import ChannelReader
from ptychostream.pva.reading import UPDATE_FIELDS, decode_taken

_QUEUE = 2000
_MOST = 20_000

Scalar = float | int | str


@dataclass(frozen=True)
class SeenFrame:
    """A frame as it came: uniqueId, POSIX times of acquisition (0: none) and arrival, [H, W], type, attributes."""

    raw_id: int
    time: float
    arrived: float
    shape: tuple[int, int]
    dtype: str
    attributes: Mapping[str, Scalar]


@dataclass
class SeenStream:
    """What came within some seconds.

    Attributes
    ----------
    began
        When the subscription began, s since the POSIX epoch.
    seconds
        How long it lasted.
    refused
        Why updates could not be used, in order.
    """

    channel: str
    began: float
    seconds: float
    connected: bool = False
    frames: list[SeenFrame] = field(default_factory=list)
    refused: list[FrameError] = field(default_factory=list)

    @property
    def held(self) -> bool:
        """Whether the first frame is an image that the server holds: it is older than the subscription."""
        return bool(self.frames) and 0 < self.frames[0].time < self.began - 1.0

    @property
    def live(self) -> list[SeenFrame]:
        """The frames that were taken while the stream was watched, as far as can be told."""
        return self.frames[1:] if self.held and not self._goes_on else self.frames

    @property
    def _goes_on(self) -> bool:
        """Whether the frames after the first are as old: then the detector's clock is off, and nothing is held."""
        return len(self.frames) > 1 and self.frames[1].time < self.began - 1.0


def watch(channel: str, attributes: Sequence[str], seconds: float) -> SeenStream:
    """Subscribe for `seconds`."""
    seen = SeenStream(channel, time.time(), seconds)
    connected = Event()

    def take(updates: Sequence[Any]) -> None:
        arrived = time.time()
        for update in updates[: max(0, _MOST - len(seen.frames))]:
            try:
                raw = decode_taken(update, attributes)
            except FrameError as error:
                seen.refused.append(error)
                continue
            if raw is not None:
                height, width = raw.array.shape
                frame = SeenFrame(
                    raw.raw_id, raw.time, arrived, (height, width), str(raw.array.dtype), dict(raw.attributes)
                )
                seen.frames.append(frame)

    reader = ChannelReader(
        channel,
        UPDATE_FIELDS,
        _QUEUE,
        take,
        lambda here: connected.set() if here else None,
        name="doctor",
        monitor=open_monitor,
    )
    reader.attributes = tuple(attributes)
    reader.start()
    Event().wait(seconds)
    reader.stop()
    seen.connected = connected.is_set()
    return seen
