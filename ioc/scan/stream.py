"""The subscription to the detector: its channel and attributes."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ptychostream.errors import FrameError
from ptychostream.frames.frames import Frame
from ptychostream.frames.stream_watch import expected_of
from ptychostream.ioc.config.settings import InputSettings
from ptychostream.ioc.scan.energy_watch import EnergyWatch
from ptychostream.model.contract import ModelContract
from ptychostream.model.raw_shape import raw_bytes, shape_judge
from ptychostream.plugins.receiver import Receiver, ReceiverSettings
from ptychostream.frames.scan_boundary import is_time_name, time_name

log = logging.getLogger(__name__)

_WAITING_BYTES = 1 << 30
_LEAST_QUEUE = 8


@dataclass(frozen=True)
class LatestFrame:
    """Number as it was sent, shape [H, W] and data type of the latest frame."""

    frame_id: int = 0
    shape: tuple[int, int] = (0, 0)
    dtype: str = ""


class Stream:
    """Owns the receiver, and replaces it when the channel changes.

    Parameters
    ----------
    submit, reject
        Take the frames that have come, in order, and the error of each update that cannot be used.
    settings
        Queue and attributes.
    waiting_bytes
        Memory that updates may take which wait in the receiver.
    """

    def __init__(
        self,
        submit: Callable[[Sequence[Frame]], None],
        reject: Callable[[FrameError], None],
        settings: InputSettings,
        waiting_bytes: int = _WAITING_BYTES,
    ) -> None:
        self._waiting_bytes = waiting_bytes
        self._contract: ModelContract | None = None
        self._submit = submit
        self._reject = reject
        self._queue_size = self._queued = settings.queue_size
        self._intake = settings.intake(settings.scan_attribute, settings.end_attribute)
        self.watch = self._intake.watch
        """What the frames say of themselves, compared with what the model expects."""
        self._given = settings.region.model_dump()
        self._energy: EnergyWatch | None = None
        if settings.energy_pv:
            self._energy = EnergyWatch(settings.energy_pv, settings.energy_provider, settings.energy_unit, self.watch)
        self._changing = threading.Lock()
        self._receiver: Receiver | None = None
        self._latest: Frame | None = None
        self._held_before = 0  # of subscriptions that are over
        self.channel = ""
        self.attributes: tuple[str, ...] = ()
        self.enabled = False

    @property
    def connected(self) -> bool:
        receiver = self._receiver
        return receiver is not None and receiver.connected

    @property
    def contradiction(self) -> tuple[str, float]:
        """What contradicts, empty where nothing does, and since when, s since the POSIX epoch."""
        return self.watch.told, self.watch.since

    @property
    def refusal(self) -> str:
        """Why the server has refused the subscription; empty where it has not."""
        return self._receiver.refusal if self._receiver is not None else ""

    def expect_shape(self, contract: ModelContract) -> None:
        """Refuse frames of another shape than the contract's before they are decoded.

        The subscription is renewed where frames of that size could fill more memory than they may.
        """
        with self._changing:
            self._contract = contract
            receiver = self._receiver
            if receiver is not None:
                receiver.shape_fault = shape_judge(contract)
                if self._queue() < self._queued:
                    self._stop()
                    self._start()

    def expect(self, contract: ModelContract | None) -> None:
        """Compare the frames with the contract of the model that runs; None: with nothing."""
        self.watch.expect(None if contract is None else expected_of(contract.said(), self._given))

    @property
    def held_images(self) -> int:
        """Images that the server held at a subscription and that are of no scan that goes on."""
        receiver = self._receiver
        return self._held_before + (receiver.held.count if receiver is not None else 0)

    def restart_counts(self) -> None:
        """Count from zero."""
        self._held_before = 0
        if self._receiver is not None:
            self._receiver.held.restart_count()

    @property
    def latest_frame(self) -> LatestFrame:
        """The latest frame, without its counts."""
        frame = self._latest
        if frame is None:
            return LatestFrame()
        height, width = frame.counts.shape
        return LatestFrame(frame.raw_id, (height, width), str(frame.counts.dtype))

    def subscribe(
        self, channel: str | None = None, attributes: tuple[str, ...] | None = None, enabled: bool | None = None
    ) -> None:
        """Change the given values; the subscription is renewed only when its channel changes, or by on and off."""
        with self._changing:
            if attributes is not None and attributes != self.attributes:
                self.attributes = attributes
                self._intake.want(attributes)
                if self._receiver is not None:
                    self._receiver.read_wanted()
            subscription = (
                self.channel if channel is None else channel.strip(),
                self.enabled if enabled is None else enabled,
            )
            if subscription == (self.channel, self.enabled):
                return
            self.channel, self.enabled = subscription
            self.watch.source = self.channel
            self._stop()
            if self.enabled and self.channel:
                self._start()

    def look(self) -> None:
        """Take what the energy PV says. Called now and then."""
        if self._energy is not None:
            self._energy.look()

    def stop(self) -> None:
        """Unsubscribe; frames that have come are handed on first."""
        self.subscribe(enabled=False)
        if self._energy is not None:
            self._energy.stop()
            self._energy = None

    def begin_scan(self) -> str:
        """Begin a scan for the frames that name none; return its id."""
        self.watch.begin()
        self._intake.unnamed = time_name(time.time())
        return self._intake.unnamed

    def names(self, scan: str) -> bool:
        """Whether `scan` is an id that the beamline gave, and not one that was made here."""
        return scan not in ("", self._intake.unnamed) and not is_time_name(scan)

    def _start(self) -> None:
        self._queued = self._queue()
        settings = ReceiverSettings(channel=self.channel, queue_size=self._queued)
        self._receiver = Receiver(settings, self._intake, self._take, self._reject)
        if self._contract is not None:
            self._receiver.shape_fault = shape_judge(self._contract)
        self._receiver.start()

    def _queue(self) -> int:
        """Updates that may wait: as many as the settings say and as the memory for them holds."""
        if self._contract is None:
            return self._queue_size
        return min(self._queue_size, max(_LEAST_QUEUE, self._waiting_bytes // raw_bytes(self._contract)))

    def _stop(self) -> None:
        if self._receiver is not None:
            self._receiver.stop()
            self._held_before += self._receiver.held.count
            self._receiver = None

    def _take(self, frames: Sequence[Frame]) -> None:
        self._latest = frames[-1]
        self._submit(frames)
