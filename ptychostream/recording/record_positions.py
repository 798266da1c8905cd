"""Positions that come beside the frames: two waveforms, or samples by time or by index."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Generic, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray
from p4p import Value

from ptychostream.errors import PtychostreamError
from ptychostream.positions.positions import AxisConfig, PositionSource, WaveformPositions
from ptychostream.pva.channel_reader import ChannelReader, each

_log = logging.getLogger(__name__)

_QUEUE = 4  # of a waveform only the newest arrays count


class WaveformMonitor:
    """Follows two array PVs that hold the scan's positions by frame index, filling or complete beforehand.

    An array that is no continuation of the one before belongs to another scan: the other axis is then waited for.
    Arrays that came before the last scan's last frame are not used for the next scan.

    Attributes
    ----------
    source
        The positions, for `ptychostream.positions.join.Join`.
    """

    def __init__(self, x_pv: str, y_pv: str, axes: AxisConfig | None = None, first_id: int | None = 0) -> None:
        self.source = WaveformPositions(axes, first_id)
        self._lock = threading.Lock()
        self._arrays: list[NDArray[np.float64] | None] = [None, None]
        self._since = 0.0  # when the arrays of this scan began to come, POSIX
        self._readers = [
            ChannelReader(pv, "field(value)", _QUEUE, each(partial(self._update, axis)), lambda _: None, name=pv)
            for axis, pv in enumerate((x_pv, y_pv))
        ]

    def start(self) -> None:
        for reader in self._readers:
            reader.start()

    def stop(self) -> None:
        for reader in self._readers:
            reader.stop()

    def begin(self, last_frame_s: float) -> None:
        """A scan begins; the last one's last frame came at `last_frame_s`, POSIX: older arrays are that scan's."""
        with self._lock:
            if self._since < last_frame_s:
                self._arrays = [None, None]
                self.source.clear()

    def bring(self) -> None:
        """Do nothing: the readers' threads update the source."""

    def _update(self, axis: int, update: Value) -> None:
        array = np.array(update["value"], np.float64).ravel()
        with self._lock:
            before = self._arrays[axis]
            if before is None or not np.array_equal(array[: len(before)], before, equal_nan=True):
                other = self._arrays[1 - axis]
                if before is not None or other is None:
                    self._since = time.time()
                    self._arrays[1 - axis] = None
            self._arrays[axis] = array
            x, y = self._arrays
            if x is None or y is None:
                self.source.clear()
            else:
                self.source.update(x, y)


class SampleReader(Protocol):
    """A subscription to samples, such as `ptychostream.plugins.position_receiver.PositionReceiver`."""

    def start(self) -> None: ...

    def stop(self) -> None: ...


T = TypeVar("T")


class SampleFeed(Generic[T]):
    """What a reader's thread brings, handed to the position source in the recording's thread.

    Parameters
    ----------
    source
        The position source.
    connect
        Makes the reader from a sink, for what it brings and its arrival, and one for errors.
    take
        Gives the source what was brought, and its arrival.
    """

    def __init__(
        self,
        source: PositionSource,
        connect: Callable[[Callable[[T, float], None], Callable[[PtychostreamError], None]], SampleReader],
        take: Callable[[T, float], None],
    ) -> None:
        self.source = source
        self.bad = 0
        """Updates that could not be used."""
        self._take = take
        self._arrived: queue.SimpleQueue[tuple[T, float]] = queue.SimpleQueue()
        self._reader = connect(lambda brought, arrived: self._arrived.put((brought, arrived)), self._refuse)

    def start(self) -> None:
        self._reader.start()

    def stop(self) -> None:
        self._reader.stop()

    def begin(self, last_frame_s: float) -> None:
        """Do nothing: samples are matched by time, or by the arm that a scan is bound to."""

    def bring(self) -> None:
        """Hand what has come to the source."""
        while not self._arrived.empty():
            brought, arrived = self._arrived.get()
            try:
                self._take(brought, arrived)
            except PtychostreamError as error:
                self._refuse(error)

    def _refuse(self, error: PtychostreamError) -> None:
        self.bad += 1
        if self.bad == 1:
            _log.warning("%s; more of the kind are counted", error)
