"""At which stage frames stop, from two states of the stream. `diagnose` is pure; `Diagnoser` keeps states and logs."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

from ptychostream.errors import DropCause

_log = logging.getLogger(__name__)

SHORTEST_PATIENCE_S = 2.0
LONGEST_PATIENCE_S = 60.0
_FRAME_TIMES = 4
"""A stream is silent when this many frame intervals have passed without a frame."""
STUCK_S = 5.0
"""An engine that needs longer than this for one batch is stuck, s."""
_NOTABLE = 0.01
"""Share of dropped frames above which they are reported while the others are stitched."""


class Where(Enum):
    """The stage at which frames stop."""

    RUNNING = "running"
    IDLE = "idle"
    DISABLED = "subscription"
    NO_CHANNEL = "channel name"
    DISCONNECTED = "detector"
    SILENT = "stream"
    REJECTED = "decoding"
    LATE = "scan"
    POSITIONS = "positions"
    DECIMATED = "decimation"
    NO_MODEL = "model"
    ENGINE_FAILS = "engine failure"
    ENGINE_BUSY = "engine"
    NOT_MEASURED = "measurement"
    CONTRADICTION = "contradiction"
    UNSELECTED = "selection"
    IMAGES = "images"


SUBSCRIPTION = (Where.DISABLED, Where.NO_CHANNEL, Where.DISCONNECTED)
"""The stages before a frame can come."""
READY = (Where.SILENT, Where.DECIMATED)
"""The stages at which frames stop although the next one can be served: none comes, or it is left out on purpose."""
_RUNS = (Where.RUNNING, Where.IDLE)

_STAGE_OF = {
    DropCause.CODEC: Where.REJECTED,
    DropCause.TYPE: Where.REJECTED,
    DropCause.SHAPE: Where.REJECTED,
    DropCause.DUPLICATE: Where.REJECTED,
    DropCause.NO_POSITION: Where.POSITIONS,
    DropCause.LATE: Where.LATE,
    DropCause.QUEUE_FULL: Where.ENGINE_BUSY,
    DropCause.NO_MODEL: Where.NO_MODEL,
    DropCause.ENGINE: Where.ENGINE_FAILS,
    DropCause.DECIMATED: Where.DECIMATED,
    DropCause.NOT_MEASURED: Where.NOT_MEASURED,
    DropCause.CONTRADICTION: Where.CONTRADICTION,
    DropCause.UNSELECTED: Where.UNSELECTED,
}


@dataclass(frozen=True)
class StreamState:
    """The state of the stream at one moment.

    Attributes
    ----------
    time
        Monotonic time, s.
    enabled, channel, connected
        The subscription.
    received, stitched, dropped
        Totals.
    waiting_position, queue_used, busy_s
        Frames that wait for a position and for the engine, and how long the batch in flight has been.
    scan_active
        Whether a scan runs, and frames are to be expected.
    positions
        Description of the position source.
    message
        The last thing that went wrong in the pipeline.
    images
        Why images are not served; empty where they are.
    contradiction
        What the frames say that the model denies; empty where nothing does.
    refusal
        Why the server refuses the subscription; empty where it does not.
    """

    time: float
    enabled: bool = True
    channel: str = ""
    connected: bool = False
    received: int = 0
    stitched: int = 0
    dropped: Mapping[DropCause, int] | None = None
    waiting_position: int = 0
    queue_used: int = 0
    busy_s: float = 0.0
    scan_active: bool = False
    positions: str = ""
    message: str = ""
    images: str = ""
    contradiction: str = ""
    refusal: str = ""


@dataclass(frozen=True)
class Diagnosis:
    """The stage, why frames stop there (empty where they do not stop), and both in words."""

    where: Where
    cause: str
    text: str

    @property
    def stopped(self) -> bool:
        return self.where not in _RUNS


def diagnose(
    before: StreamState, now: StreamState, quiet_s: float, patience_s: float = SHORTEST_PATIENCE_S
) -> Diagnosis:
    """Where frames stop.

    Parameters
    ----------
    before, now
        Two states. A counter that did not change within `patience_s` has stopped.
    quiet_s
        Seconds since a frame came, good or bad.
    patience_s
        Seconds without a frame that are normal while a scan runs.
    """
    found = _subscription(now)
    if now.busy_s >= STUCK_S:
        return Diagnosis(Where.ENGINE_BUSY, "stuck", f"the engine has been at one batch for {now.busy_s:.0f} s")
    if found is not None:
        return found
    if quiet_s >= patience_s:
        if now.scan_active:
            text = f"{now.channel} is connected, but no frame has come for {quiet_s:.0f} s while a scan runs"
            return Diagnosis(Where.SILENT, "", text)
        return _images(now) or Diagnosis(Where.IDLE, "", "")
    if now.time - before.time < patience_s or now.received <= before.received:
        return Diagnosis(Where.RUNNING, "", "")
    return _flow(before, now) or _images(now) or Diagnosis(Where.RUNNING, "", "")


def _subscription(now: StreamState) -> Diagnosis | None:
    if not now.enabled:
        return Diagnosis(Where.DISABLED, "", "not subscribed: EnableCallbacks is Disable")
    if not now.channel:
        return Diagnosis(Where.NO_CHANNEL, "", "no detector: InputPVAName is empty")
    if not now.connected and now.refusal:
        text = f"{now.channel} is no NTNDArray: {now.refusal} (name the channel of a detector's PVA plugin)"
        return Diagnosis(Where.NO_CHANNEL, now.channel, text)
    if not now.connected:
        return Diagnosis(Where.DISCONNECTED, now.channel, f"waiting for {now.channel}")
    return None


def _images(now: StreamState) -> Diagnosis | None:
    return Diagnosis(Where.IMAGES, now.images, f"images are not served: {now.images}") if now.images else None


def _flow(before: StreamState, now: StreamState) -> Diagnosis | None:
    """Frames come: what becomes of them."""
    came, stitched = now.received - before.received, now.stitched - before.stitched
    earlier, later = before.dropped or {}, now.dropped or {}
    dropped = {cause: count - earlier.get(cause, 0) for cause, count in later.items()}
    most = max(dropped, key=lambda cause: dropped[cause], default=None)
    share = max(0, dropped[most]) / came if most is not None else 0.0
    if stitched > 0:
        if most is None or share < _NOTABLE or most is DropCause.DECIMATED:
            return None
        text = f"running, but {share:.0%} of the frames are dropped: {most.value}{_reason(_STAGE_OF[most], now)}"
        return Diagnosis(Where.RUNNING, most.value, text)
    if most is not None and share >= 0.5:
        return Diagnosis(_STAGE_OF[most], most.value, _dropping(most, now))
    if now.waiting_position > before.waiting_position:
        text = f"{now.waiting_position} frames wait for their position from {now.positions or 'its source'}"
        return Diagnosis(Where.POSITIONS, "waiting", text)
    if now.queue_used or now.busy_s:
        text = f"the engine is busy: {now.queue_used} frames wait, the batch in work for {now.busy_s:.1f} s"
        return Diagnosis(Where.ENGINE_BUSY, "busy", text)
    return None


def _reason(stage: Where, now: StreamState) -> str:
    """Why frames are dropped that cannot be read or contradict, after a colon; empty where nobody said it."""
    said = {Where.REJECTED: now.message, Where.CONTRADICTION: now.contradiction}.get(stage, "")
    return f": {said}" if said else ""


def _dropping(cause: DropCause, now: StreamState) -> str:
    stage = _STAGE_OF[cause]
    why = f": {now.message}" if now.message else ""
    if stage is Where.REJECTED:
        return f"frames are rejected as {cause.value}{why}"
    if stage is Where.POSITIONS:
        return f"frames get no position from {now.positions or 'its source'}"
    if stage is Where.LATE:
        return "frames come of a scan that is over"
    if stage is Where.NO_MODEL:
        return "frames are dropped: no model is live"
    if stage is Where.ENGINE_FAILS:
        return f"frames are dropped{why or ': the engine fails'}"
    if stage is Where.NOT_MEASURED:
        return f"frames are no measurement{why}"
    if stage is Where.CONTRADICTION:
        return f"frames are dropped: {now.contradiction or 'they contradict the model'}"
    if stage is Where.UNSELECTED:
        return "every frame is of another kind than select_value says"
    if stage is Where.DECIMATED:
        return "every pattern is left out by the decimation: the positions do not move"
    return f"the queue is full and the engine takes nothing: its batch has been in work for {now.busy_s:.1f} s"


class Diagnoser:
    """Keeps the states that a diagnosis needs, and logs each change of the diagnosis once."""

    def __init__(self) -> None:
        self._looks: deque[StreamState] = deque()
        self._came = 0.0  # when the newest frame was seen
        self._patience_s = SHORTEST_PATIENCE_S
        self._told = (Where.IDLE, "")

    def look(self, now: StreamState) -> Diagnosis:
        """The diagnosis now, from this state and those before it."""
        if not self._looks:
            self._came = now.time
        elif now.received != self._looks[-1].received:
            gap_s = now.time - self._came
            lasting = max(_FRAME_TIMES * gap_s, 0.9 * self._patience_s)
            self._patience_s = min(max(lasting, SHORTEST_PATIENCE_S), LONGEST_PATIENCE_S)
            self._came = now.time
        self._looks.append(now)
        while len(self._looks) > 2 and self._looks[1].time <= now.time - self._patience_s:
            self._looks.popleft()
        found = diagnose(self._looks[0], now, now.time - self._came, self._patience_s)
        self._tell(found)
        return found

    def _tell(self, found: Diagnosis) -> None:
        key = (found.where, found.cause)
        if key == self._told:
            return
        was_stopped, self._told = self._told[0] not in _RUNS, key
        if found.stopped:
            _log.warning("frames stop at the %s: %s", found.where.value, found.text)
        elif found.text:
            _log.warning("%s", found.text)
        elif was_stopped:
            _log.info("nothing holds frames back any more")
