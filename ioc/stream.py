"""The subscription to the detector: which channel, on or off, which attributes; and the end of a scan."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import pvaccess as pva

from ptychostream.frames import Frame
from ptychostream.ioc.settings import InputSettings
from ptychostream.plugins.pipeline import Pipeline
from ptychostream.plugins.receiver import Receiver, ReceiverSettings

log = logging.getLogger(__name__)

_IDLE_WORDS = frozenset({"", "0", "idle", "done", "no", "off", "false", "inactive", "complete", "finished"})


@dataclass(frozen=True)
class FrameLook:
    """What the latest frame looked like."""

    frame_id: int = 0
    shape: tuple[int, int] = (0, 0)
    dtype: str = ""


class Stream:
    """Owns the receiver, and replaces it when channel or attributes change.

    Parameters
    ----------
    pipeline
        Takes the frames.
    settings
        Queue and scan attribute.
    on_end
        Called with the scan's id when a frame's end attribute says that its scan is over.
    """

    def __init__(self, pipeline: Pipeline, settings: InputSettings, on_end: Callable[[str], None]) -> None:
        self._pipeline = pipeline
        self._settings = settings
        self._on_end = on_end
        self._changing = threading.Lock()
        self._receiver: Receiver | None = None
        self._latest: Frame | None = None
        self._unnamed_scan = ""
        self.channel = ""
        self.attributes: tuple[str, ...] = ()
        self.enabled = False

    @property
    def connected(self) -> bool:
        receiver = self._receiver
        return receiver is not None and receiver.connected

    @property
    def look(self) -> FrameLook:
        """The latest frame's look."""
        frame = self._latest
        if frame is None:
            return FrameLook()
        height, width = frame.counts.shape
        return FrameLook(frame.id, (height, width), str(frame.counts.dtype))

    def subscribe(
        self, channel: str | None = None, attributes: tuple[str, ...] | None = None, enabled: bool | None = None
    ) -> None:
        """Change what is given; a receiver whose settings did not change goes on undisturbed."""
        with self._changing:
            wanted = (
                self.channel if channel is None else channel.strip(),
                self.attributes if attributes is None else attributes,
                self.enabled if enabled is None else enabled,
            )
            if wanted == (self.channel, self.attributes, self.enabled):
                return
            self.channel, self.attributes, self.enabled = wanted
            self._stop()
            if self.enabled and self.channel:
                self._start()

    def stop(self) -> None:
        """Unsubscribe; what has come is handed on first."""
        self.subscribe(enabled=False)

    def begin_scan(self) -> None:
        """Frames that name no scan belong to a new one from here on."""
        self._unnamed_scan = datetime.now().strftime("%Y%m%d-%H%M%S.%f")
        if self._receiver is not None:
            self._receiver.scan = self._unnamed_scan

    def _start(self) -> None:
        extra = (self._settings.end_attribute,) if self._settings.end_attribute else ()
        settings = ReceiverSettings(
            channel=self.channel,
            queue_size=self._settings.queue_size,
            scan_attribute=self._settings.scan_attribute,
            attributes=(*self.attributes, *extra),
        )
        self._receiver = Receiver(settings, self._take if extra else self._look_and_submit, self._pipeline.reject)
        self._receiver.scan = self._unnamed_scan
        self._receiver.start()

    def _stop(self) -> None:
        if self._receiver is not None:
            self._receiver.stop()
            self._receiver = None

    def _look_and_submit(self, frame: Frame) -> None:
        self._latest = frame
        self._pipeline.submit(frame)

    def _take(self, frame: Frame) -> None:
        self._look_and_submit(frame)
        if not _idle(frame.attributes.get(self._settings.end_attribute)):
            self._on_end(frame.scan)


class ScanWatch:
    """Watches the PV that tells whether a scan runs.

    Parameters
    ----------
    name
        The PV: a number that is 0 while idle, or a text such as "Idle" or "Done".
    provider
        "ca" or "pva".
    on_begin, on_end
        Called at its edges, in a thread of pvaccess: they must not block. The first value is no edge.
    """

    def __init__(self, name: str, provider: str, on_begin: Callable[[], None], on_end: Callable[[], None]) -> None:
        self._on_begin = on_begin
        self._on_end = on_end
        self._active: bool | None = None
        self._channel = pva.Channel(name, pva.CA if provider == "ca" else pva.PVA)
        self._watch = self._changed  # kept: pvaccess holds no reference of its own to a bound method

    @property
    def active(self) -> bool | None:
        """The last value; None before any."""
        return self._active

    def start(self) -> None:
        self._channel.subscribe("scan", self._watch)
        self._channel.startMonitor("field(value)")

    def stop(self) -> None:
        self._channel.stopMonitor()

    def _changed(self, update: Any) -> None:
        value = update["value"]
        if isinstance(value, dict):  # an enumeration
            choices, index = value.get("choices", []), int(value.get("index", 0))
            value = choices[index] if index < len(choices) else index
        active = not _idle(value)
        before, self._active = self._active, active
        if before is None or active == before:
            return
        (self._on_begin if active else self._on_end)()


def _idle(value: object) -> bool:
    if value is None:
        return True
    if isinstance(value, str):
        return value.strip().lower() in _IDLE_WORDS
    return not value
