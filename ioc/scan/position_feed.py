"""The stream of positions at the IOC: the subscription, and the samples that it brings to the pipeline."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ptychostream.errors import StreamError
from ptychostream.ioc.config.settings import PositionStreamSettings
from ptychostream.plugins.position_receiver import PositionReceiver, PositionReceiverSettings
from ptychostream.positions.position_stream import StreamPositions
from ptychostream.positions.positions import AxisConfig, PositionSource


class Placer(Protocol):
    """The receiver of positions, such as a `FrameSource`."""

    def set_positions(self, positions: PositionSource) -> None: ...

    def update_positions(self, update: Callable[[], None]) -> None: ...


class PositionFeed:
    """Subscribes to the stream of positions while it is in use. Methods may be called from any thread.

    Parameters
    ----------
    settings
        The initial settings; nothing is subscribed to before `subscribe`.
    axes
        Unit, swap and signs of the positions that are sent.
    say
        Called with a message for every update that cannot be used.
    """

    def __init__(self, settings: PositionStreamSettings, axes: AxisConfig, say: Callable[[str], None]) -> None:
        self.source = StreamPositions(settings, axes)
        self.channel = settings.pv
        self.wanted = False
        self.bad_updates = 0
        self._say = say
        self._settings = settings
        self._changing = threading.Lock()
        self._receiver: PositionReceiver | None = None
        self._placer: Placer | None = None

    @property
    def connected(self) -> bool:
        receiver = self._receiver
        return receiver is not None and receiver.connected

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
            if self._receiver is not None:
                self._receiver.stop()
                self._receiver = None
            if self.wanted and self.channel:
                settings = PositionReceiverSettings(
                    channel=self.channel,
                    columns=self._settings.columns,
                    time_unit=self._settings.time_unit,
                    queue_size=self._settings.queue_size,
                )
                self._receiver = PositionReceiver(settings, self._take, self._take_bad)
                self._receiver.start()

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

    def _take(self, samples: NDArray[np.float64], arrived: float) -> None:
        times, x, y = samples
        self.change(lambda: self.source.update(times, x, y, arrived))

    def _take_bad(self, error: StreamError) -> None:
        self.bad_updates += 1
        self._say(str(error))
