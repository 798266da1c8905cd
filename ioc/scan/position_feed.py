"""Streams of positions at the IOC: the subscription, and the samples that it brings to the pipeline."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from ptychostream.errors import PtychostreamError
from ptychostream.ioc.config.settings import PositionIndexSettings, PositionStreamSettings
from ptychostream.panda.messages import Begun, Ended, Rows
from ptychostream.panda.placing import tell
from ptychostream.panda.settings import PandaSettings
from ptychostream.plugins.position_receiver import (
    IndexReceiver,
    PositionReceiver,
)
from ptychostream.positions.indexed_positions import IndexedPositions
from ptychostream.positions.position_stream import StreamPositions
from ptychostream.positions.positions import AxisConfig, PositionSource
from ptychostream.pva.indexed_update import IndexedUpdate
from ptychostream.panda.placing import ended_badly, in_metres, open_reader


class Placer(Protocol):
    """The receiver of positions, such as a `FrameSource`."""

    def set_positions(self, positions: PositionSource) -> None: ...

    def update_positions(self, update: Callable[[], None]) -> None: ...


class Reader(Protocol):
    """A subscription, such as a `PositionReceiver`."""

    @property
    def connected(self) -> bool: ...

    def start(self) -> None: ...

    def stop(self) -> None: ...


P = TypeVar("P", StreamPositions, IndexedPositions)


class PositionFeed(Generic[P]):
    """Subscribes to a stream of positions while it is in use. Methods may be called from any thread.

    Parameters
    ----------
    source
        Takes the samples.
    channel
        What is subscribed to at first; nothing before `subscribe`.
    say
        Called with a message for every update that cannot be used.

    Attributes
    ----------
    read
        Makes the reader of a channel.
    """

    def __init__(self, source: P, channel: str, say: Callable[[str], None]) -> None:
        self.source: P = source
        self.channel = channel
        self.wanted = False
        self.bad_updates = 0
        self.read: Callable[[str], Reader]
        self._say = say
        self._changing = threading.Lock()
        self._reader: Reader | None = None
        self._placer: Placer | None = None

    @property
    def connected(self) -> bool:
        reader = self._reader
        return reader is not None and reader.connected

    def connect(self, placer: Placer) -> None:
        """From now on, add samples under the lock of `placer`, which then places the frames that wait for them."""
        self._placer = placer

    def subscribe(self, channel: str | None = None, wanted: bool | None = None) -> None:
        """Change the given values; the subscription is renewed only when its channel changes, or by on and off."""
        with self._changing:
            now = (self.channel if channel is None else channel.strip(), self.wanted if wanted is None else wanted)
            if now == (self.channel, self.wanted):
                return
            self.channel, self.wanted = now
            if self._reader is not None:
                self._reader.stop()
                self._reader = None
            if self.wanted and self.channel:
                self._reader = self.read(self.channel)
                self._reader.start()

    def stop(self) -> None:
        """Unsubscribe; samples that have come are handed on first."""
        self.subscribe(wanted=False)

    def change(self, update: Callable[[], None]) -> None:
        """Run `update`, which changes the source, between two frames; frames that wait are then looked up again."""
        if self._placer is not None:
            self._placer.update_positions(update)
        else:
            update()

    def restart_counts(self) -> None:
        """Count from zero."""
        self.change(self.source.restart_counts)
        self.bad_updates = 0

    def refuse(self, error: PtychostreamError) -> None:
        """Count an update that cannot be used."""
        self.bad_updates += 1
        self._say(str(error))


def feed_by_time(
    settings: PositionStreamSettings, axes: AxisConfig, say: Callable[[str], None]
) -> PositionFeed[StreamPositions]:
    """The feed of a channel of (time, x, y)."""
    source = StreamPositions(settings, axes)
    feed = PositionFeed(source, settings.pv, say)

    def take(samples: NDArray[np.float64], arrived: float) -> None:
        times, x, y = samples
        feed.change(lambda: source.update(times, x, y, arrived))

    def read(channel: str) -> PositionReceiver:
        return PositionReceiver(settings.receiver(channel, axes.unit), take, feed.refuse)

    feed.read = read
    return feed


def feed_by_index(
    settings: PositionIndexSettings, axes: AxisConfig, say: Callable[[str], None]
) -> PositionFeed[IndexedPositions]:
    """The feed of a channel of (first index, x[], y[])."""
    source = IndexedPositions(settings, axes)
    feed = PositionFeed(source, settings.pv, say)

    def take(update: IndexedUpdate, arrived: float) -> None:
        index, x, y, scan, arm = update
        try:
            feed.change(lambda: source.update(index, x, y, scan, arm, arrived))
        except PtychostreamError as error:
            feed.refuse(error)

    def read(channel: str) -> IndexReceiver:
        return IndexReceiver(settings.receiver(channel, axes.unit), take, feed.refuse)

    feed.read = read
    return feed


class PandaFeed(PositionFeed[IndexedPositions]):
    """The feed of a PandABox: its captures are arms, and each row is a sample.

    Attributes
    ----------
    missed
        Rows of the latest capture that were sent before anyone listened.
    faults
        Captures that could not be used or did not end as they should, and connections that were lost.
    ended
        How the latest capture ended, or that it goes on.
    """

    def __init__(
        self, settings: PandaSettings, index: PositionIndexSettings, axes: AxisConfig, say: Callable[[str], None]
    ) -> None:
        super().__init__(IndexedPositions(index, in_metres(axes)), settings.host, say)
        self.missed = self.faults = 0
        self.ended = ""
        self._settings = settings
        self.read = self._read

    def restart_counts(self) -> None:
        """Count from zero."""
        super().restart_counts()
        self.faults = 0

    def _read(self, host: str) -> Reader:
        settings = self._settings.model_copy(update={"host": host})
        return open_reader(settings, self._take, self._fault, "a PandABox as position source")

    def _take(self, heard: Begun | Rows | Ended, arrived: float) -> None:
        if isinstance(heard, Begun):
            self.missed, self.ended = heard.missed, f"{heard.arm}: capturing"
        self.change(lambda: tell(self.source, heard, arrived))
        if isinstance(heard, Ended):
            self.ended = f"{heard.arm}: {heard.reason} after {heard.rows} rows"
            if (problem := ended_badly(heard)) is not None:
                self._fault(problem)

    def _fault(self, error: PtychostreamError) -> None:
        self.faults += 1
        self._say(str(error))
