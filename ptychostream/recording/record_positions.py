"""Positions that come over PV Access beside the frames: two waveforms, or a stream of (time, x, y)."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from p4p import Value

from ptychostream.errors import StreamError
from ptychostream.positions.position_stream import StreamPositions
from ptychostream.positions.positions import AxisConfig, WaveformPositions
from ptychostream.pva.channel_reader import ChannelReader, each

_log = logging.getLogger(__name__)
Samples = NDArray[np.float64]

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


class SampleFeed:
    """Samples of (time, x, y) that a reader's thread brings, handed to their source in the recording's thread.

    Parameters
    ----------
    source
        The position source, which interpolates the samples.
    connect
        Makes the reader from a sink, for [3, n] samples and their arrival, and one for errors.
    """

    def __init__(
        self,
        source: StreamPositions,
        connect: Callable[[Callable[[Samples, float], None], Callable[[StreamError], None]], SampleReader],
    ) -> None:
        self.source = source
        self.bad = 0
        """Updates that held no samples."""
        self._arrived: queue.SimpleQueue[tuple[Samples, float]] = queue.SimpleQueue()
        self._reader = connect(lambda samples, arrived: self._arrived.put((samples, arrived)), self._refuse)

    def start(self) -> None:
        self._reader.start()

    def stop(self) -> None:
        self._reader.stop()

    def begin(self, last_frame_s: float) -> None:
        """Do nothing: samples are matched by time, not by scan."""

    def bring(self) -> None:
        """Hand the samples that have come to the source."""
        while not self._arrived.empty():
            (times, x, y), arrived = self._arrived.get()
            self.source.update(times, x, y, arrived)

    def _refuse(self, error: StreamError) -> None:
        self.bad += 1
        if self.bad == 1:
            _log.warning("%s; more of the kind are counted", error)
