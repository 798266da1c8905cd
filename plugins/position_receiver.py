"""From a PV Access channel of positions to samples of (time, x, y), in a thread of its own."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from p4p import Value
from pydantic import Field

from ptychostream.config import Settings
from ptychostream.errors import StreamError
from ptychostream.pva.channel_reader import ChannelReader, each
from ptychostream.pva.position_update import decode_positions

_REST_S = 0.004  # as the detector's receiver does, so that it cancels out of the clock offset
_TIME_UNIT_S = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9}


class PositionReceiverSettings(Settings):
    """Configuration of the position receiver."""

    channel: str
    """PVA channel that gives time, x and y."""
    columns: tuple[str, str, str] = ("time", "x", "y")
    """Names of its fields or table columns."""
    time_unit: Literal["s", "ms", "us", "ns"] = "s"
    """Unit of the times. Their zero does not matter: the clock offset accounts for it."""
    queue_size: int = Field(1000, ge=1)
    """Updates held on the server's side of the connection."""


class PositionReceiver:
    """Subscribes to a channel of positions and hands its samples on.

    Parameters
    ----------
    settings
        See `PositionReceiverSettings`.
    sink
        Takes [3, n] samples (time in seconds, x and y as sent) and when they arrived, seconds since the POSIX epoch.
    on_bad
        Gets the error of every update that holds no samples.
    on_connect
        Called in the receiver's thread with True when the channel connects and False when it disconnects.
    """

    def __init__(
        self,
        settings: PositionReceiverSettings,
        sink: Callable[[NDArray[np.float64], float], None],
        on_bad: Callable[[StreamError], None],
        on_connect: Callable[[bool], None] = lambda _: None,
    ) -> None:
        self._columns = settings.columns
        self._unit_s = _TIME_UNIT_S[settings.time_unit]
        self._sink = sink
        self._on_bad = on_bad
        self._reader = ChannelReader(
            settings.channel,
            "field()",
            settings.queue_size,
            each(self._take),
            on_connect,
            name="positions",
            rest_s=_REST_S,
        )

    @property
    def connected(self) -> bool:
        return self._reader.connected

    def start(self) -> None:
        """Subscribe. A channel that is not there yet is connected to when it comes."""
        self._reader.start()

    def stop(self) -> None:
        """Unsubscribe, and hand on the samples that have come."""
        self._reader.stop()

    def _take(self, update: Value) -> None:
        arrived = time.time()
        try:
            samples = decode_positions(update, self._columns)
        except StreamError as error:
            self._on_bad(error)
            return
        if samples is not None:
            samples[0] *= self._unit_s
            self._sink(samples, arrived)
