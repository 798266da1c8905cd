"""Watches a detector's stream for some seconds: what came, when, what it says of itself, and what could not be used.

The frames are received as the IOC receives them, so that what is found here is what happens there.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from threading import Event

from ptychostream.errors import DropCause, FrameError
from ptychostream.frames.frames import Frame
from ptychostream.frames.intake import Intake
from ptychostream.plugins.receiver import Receiver, ReceiverSettings
from ptychostream.statements.description import Contradiction, Description

_QUEUE = 2000
_MOST = 20_000

Scalar = float | int | str


@dataclass(frozen=True)
class SeenFrame:
    """A frame as it came.

    Attributes
    ----------
    raw_id
        uniqueId.
    time, arrived
        POSIX times of its acquisition (0: it has none) and of its arrival.
    shape, dtype
        [H, W] and type of its counts.
    fault
        Why the IOC would drop it; None: it would not.
    """

    raw_id: int
    time: float
    arrived: float
    shape: tuple[int, int]
    dtype: str
    attributes: Mapping[str, Scalar]
    scan: str = ""
    fault: DropCause | None = None


@dataclass
class SeenStream:
    """What came within some seconds.

    Attributes
    ----------
    began
        When the subscription began, s since the POSIX epoch.
    seconds
        How long it lasted.
    frames
        Those that were taken while the stream was watched, as far as can be told.
    held
        The image that the server held at the subscription, if no frame came after it.
    refused
        Why updates could not be used, in order.
    refusal
        Why the server has ended the subscription; empty where it has not.
    contradictions
        Each once, in order.
    said
        What the latest frame says of itself.
    """

    channel: str
    began: float
    seconds: float
    connected: bool = False
    frames: list[SeenFrame] = field(default_factory=list)
    held: SeenFrame | None = None
    refused: list[FrameError] = field(default_factory=list)
    refusal: str = ""
    contradictions: list[Contradiction] = field(default_factory=list)
    said: Description = field(default_factory=Description)

    @property
    def images(self) -> Sequence[SeenFrame]:
        """The frames, or else the image that the server holds."""
        return self.frames or ([self.held] if self.held is not None else [])

    @property
    def wanted(self) -> Sequence[SeenFrame]:
        """The images of the kind that is wanted, such as those of one threshold of several."""
        return [frame for frame in self.images if frame.fault is not DropCause.UNSELECTED]


def watch(channel: str, intake: Intake, seconds: float, enough: int = _MOST) -> SeenStream:
    """Subscribe for `seconds`, or until `enough` frames have come."""
    seen = SeenStream(channel, time.time(), seconds)
    done = Event()
    texts: set[str] = set()

    def take(frames: Sequence[Frame]) -> None:
        seen.frames += [_seen(frame) for frame in frames[: max(0, _MOST - len(seen.frames))]]
        if len(seen.frames) >= enough:
            done.set()

    def note(found: Sequence[Contradiction]) -> None:
        for contradiction in found:
            if str(contradiction) not in texts and len(texts) < _MOST:
                texts.add(str(contradiction))
                seen.contradictions.append(contradiction)

    def connect(here: bool) -> None:
        seen.connected = seen.connected or here

    intake.watch.source, intake.watch.on_contradiction = channel, note
    settings = ReceiverSettings(channel=channel, queue_size=_QUEUE)
    receiver = Receiver(settings, intake, take, seen.refused.append, connect)
    receiver.start()
    done.wait(seconds)
    receiver.stop()
    if not seen.frames and receiver.held.image is not None:
        seen.held = _seen(receiver.held.image)
    seen.said, seen.refusal = intake.watch.description, receiver.refusal
    return seen


def _seen(frame: Frame) -> SeenFrame:
    height, width = frame.counts.shape
    stamp = 0.0 if frame.time == frame.received else frame.time  # a frame without one has the time of its arrival
    return SeenFrame(
        frame.raw_id, stamp, frame.received, (height, width), str(frame.counts.dtype), dict(frame.attributes),
        frame.scan, frame.fault,
    )  # fmt: skip
