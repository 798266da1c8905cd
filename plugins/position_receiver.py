"""From a PV Access channel of positions to samples, by time or by index, in a thread of its own."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Generic, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray
from p4p import Value
from pydantic import Field

from ptychostream.config import Settings
from ptychostream.errors import StreamError
from ptychostream.pva.channel_reader import ChannelReader, each
from ptychostream.pva.indexed_update import IndexedUpdate, decode_indexed
from ptychostream.pva.position_update import PartialUpdateError, check_units, decode_positions

_REST_S = 0.004  # as the detector's receiver does, so that it cancels out of the clock offset
_TIME_UNIT_S = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9}

S = TypeVar("S")


class PositionReceiverSettings(Settings):
    """Configuration of the position receiver."""

    channel: str
    """PVA channel that gives time, x and y."""
    columns: tuple[str, str, str] = ("time", "x", "y")
    """Names of its fields or table columns."""
    time_unit: Literal["s", "ms", "us", "ns"] = "s"
    """Unit of the times. Their zero does not matter: the clock offset accounts for it."""
    unit: str = ""
    """Unit of x and y that is configured, to compare with what the channel says; empty: not compared."""
    queue_size: int = Field(1000, ge=1)
    """Updates held on the server's side of the connection."""


class _Receiver(Generic[S]):
    """Subscribes to a channel and hands on what each update holds.

    After an update that mixes columns of two moments nothing more is taken until the channel connects again: what
    looks whole may be two such updates merged in a queue.
    """

    def __init__(
        self,
        channel: str,
        queue_size: int,
        decode: Callable[[Value], S | None],
        sink: Callable[[S, float], None],
        on_bad: Callable[[StreamError], None],
        on_connect: Callable[[bool], None] = lambda _: None,
    ) -> None:
        self._decode = decode
        self._sink = sink
        self._on_bad = on_bad
        self._on_connect = on_connect
        self._mixed: PartialUpdateError | None = None
        self._reader = ChannelReader(
            channel, "field()", queue_size, each(self._take), self._connects, name="positions", rest_s=_REST_S
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

    def _connects(self, connected: bool) -> None:
        self._mixed = None
        self._on_connect(connected)

    def _take(self, update: Value) -> None:
        arrived = time.time()
        try:
            samples = self._decode(update)
        except PartialUpdateError as error:
            self._mixed = error
            self._on_bad(error)
        except StreamError as error:
            self._on_bad(error)
        else:
            if samples is not None and self._mixed is not None:
                self._on_bad(self._mixed)
            elif samples is not None:
                self._sink(samples, arrived)


class PositionReceiver(_Receiver[NDArray[np.float64]]):
    """Receives samples by time.

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
        unit_s = _TIME_UNIT_S[settings.time_unit]

        def decode(update: Value) -> NDArray[np.float64] | None:
            samples = decode_positions(update, settings.columns)
            check_units(update, {settings.columns[0]: settings.time_unit}, "time")
            check_units(update, dict.fromkeys(settings.columns[1:], settings.unit), "length")
            if samples is not None:
                samples[0] *= unit_s
            return samples

        super().__init__(settings.channel, settings.queue_size, decode, sink, on_bad, on_connect)


class IndexReceiverSettings(Settings):
    """Configuration of the receiver of positions by index."""

    channel: str
    """PVA channel that gives index, x and y."""
    columns: tuple[str, str, str] = ("index", "x", "y")
    """Names of its fields or table columns."""
    names: tuple[str, str] = ("scan", "arm")
    """Names of the fields that name the scan and the arm, if it has them."""
    unit: str = ""
    """See `PositionReceiverSettings`."""
    queue_size: int = Field(1000, ge=1)
    """Updates held on the server's side of the connection."""


class IndexReceiver(_Receiver[IndexedUpdate]):
    """Receives samples by index; see `PositionReceiver`. The sink takes an `IndexedUpdate` and its time of arrival."""

    def __init__(
        self,
        settings: IndexReceiverSettings,
        sink: Callable[[IndexedUpdate, float], None],
        on_bad: Callable[[StreamError], None],
        on_connect: Callable[[bool], None] = lambda _: None,
    ) -> None:
        def decode(update: Value) -> IndexedUpdate | None:
            found = decode_indexed(update, settings.columns, settings.names)
            check_units(update, dict.fromkeys(settings.columns[1:], settings.unit), "length")
            return found

        super().__init__(settings.channel, settings.queue_size, decode, sink, on_bad, on_connect)
