"""From a detector's PV Access channel to frames, in one thread."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from typing import Any

from pydantic import Field

from ptychostream.config import Settings
from ptychostream.errors import FrameError
from ptychostream.frames.frames import Frame
from ptychostream.frames.held_image import HeldImages, Seen
from ptychostream.frames.intake import Intake
from ptychostream.pva.array_monitor import open_monitor
from ptychostream.pva.channel_reader import ChannelReader
from ptychostream.pva.monitors import Monitor
from ptychostream.pva.reading import UPDATE_FIELDS, ShapeFault, any_shape, decode_taken

_log = logging.getLogger(__name__)
_AT_ONCE_BYTES = 64 << 20
"""Decoded frames that are handed on together: those that come faster must not fill the memory here."""
_REST_S = 0.004  # waking for every frame costs more than the frame


class ReceiverSettings(Settings):
    """Configuration of the receiver."""

    channel: str
    """PVA channel of the NTNDArrays."""
    queue_size: int = Field(2000, ge=1)
    """Updates held on either side of the connection, each."""


class Receiver:
    """Subscribes to a channel, decodes every update and hands it on.

    Parameters
    ----------
    settings
        See `ReceiverSettings`.
    intake
        Names the frames' scans, and says which NTAttributes are read.
    sink
        Takes the frames that have come since the last call, in order; their `id` is still the detector's uniqueId.
    on_bad
        Gets the error of every update that cannot be used.
    on_connect
        Called in the receiver's thread with True when the channel connects and False when it disconnects.
    monitor
        Opens the monitor of the channel with this name and pvRequest.

    Notes
    -----
    The queue on the server's side is asked for in the pvRequest: a plain monitor drops frames at kilohertz rates. What
    is lost on the way shows as a gap in uniqueId.
    """

    def __init__(
        self,
        settings: ReceiverSettings,
        intake: Intake,
        sink: Callable[[Sequence[Frame]], None],
        on_bad: Callable[[FrameError], None],
        on_connect: Callable[[bool], None] = lambda _: None,
        monitor: Callable[[str, str], Monitor] = open_monitor,
    ) -> None:
        self.shape_fault: ShapeFault = any_shape
        """Judges the shape of a frame before it is decoded."""
        self._channel = settings.channel
        self._intake = intake
        self._sink = sink
        self._on_bad = on_bad
        self._on_connect = on_connect
        self.held: HeldImages[Frame] = HeldImages()
        """Keeps back the image that the server held at the subscription."""
        self._reader = ChannelReader(
            settings.channel,
            UPDATE_FIELDS,
            settings.queue_size,
            self._take,
            self._connected,
            name="receiver",
            rest_s=_REST_S,
            monitor=monitor,
        )
        self.read_wanted()

    @property
    def connected(self) -> bool:
        return self._reader.connected

    @property
    def refusal(self) -> str:
        """Why the server has refused the subscription; empty where it has not."""
        return self._reader.refusal

    def read_wanted(self) -> None:
        """From the next frames on, read the NTAttributes that the intake wants now."""
        self._reader.attributes = tuple(self._intake.wanted)

    def start(self) -> None:
        """Subscribe. A channel that is not there yet is connected to when it comes."""
        self._reader.start()

    def stop(self) -> None:
        """Unsubscribe, and hand on the frames that have come. `on_connect` is not called any more."""
        self._reader.stop()

    def _take(self, updates: Sequence[Any]) -> None:
        frames: list[Frame] = []
        size = 0
        now = time.time()
        for update in updates:
            try:
                raw = decode_taken(update, self._reader.attributes, self.shape_fault)
                if raw is None:
                    self.held.empty()
                    continue
                frame = self._intake.frame(raw, now)
                frames += self.held.take(frame, Seen(frame.scan, frame.id, raw.time, frame.flag))
                size += frame.counts.nbytes
                if size > _AT_ONCE_BYTES:
                    self._hand_on(frames)
                    frames, size = [], 0
            except FrameError as error:
                self.held.empty()
                self._hand_on(frames)
                frames = []
                self._on_bad(error)
            except Exception:  # noqa: BLE001 - the thread's outermost: one update must not cost those beside it
                _log.exception("an update of %s was lost", self._channel)
        self._hand_on(frames)

    def _connected(self, connected: bool) -> None:
        if connected:
            self.held.subscribed()
        self._on_connect(connected)

    def _hand_on(self, frames: list[Frame]) -> None:
        if frames:
            self._sink(frames)
