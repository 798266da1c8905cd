"""From a detector's PV Access channel to frames, in one thread."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

import pvaccess as pva
from pydantic import Field

from ptychostream.config import Settings
from ptychostream.errors import FrameError
from ptychostream.frames import Frame
from ptychostream.pva.ntndarray import PV_REQUEST, RawArray, decode

_log = logging.getLogger(__name__)
_IDLE_S = 0.1  # how often a thread without frames looks whether it is to stop
_REST_S = 0.004


class ReceiverSettings(Settings):
    """Configuration of the receiver."""

    channel: str
    """The NTNDArray's PVA channel, such as `13SIM1:Pva1:Image`."""
    queue_size: int = Field(2000, ge=1)
    """Updates held on either side of the connection, each."""
    scan_attribute: str = "ScanID"
    """NTAttribute that names the scan; where a frame has none, `Receiver.scan` does."""
    attributes: tuple[str, ...] = ()
    """Further NTAttributes that frames are to carry, such as the positions'."""


class Receiver:
    """Subscribes to a channel, decodes every update and hands it on.

    Parameters
    ----------
    settings
        See `ReceiverSettings`.
    sink
        Takes each frame; its `id` is still the detector's uniqueId.
    on_bad
        Takes the error of an update that is no usable frame.
    on_connect
        Told True and False as the channel comes and goes, in the receiver's thread.
    """

    def __init__(
        self,
        settings: ReceiverSettings,
        sink: Callable[[Frame], None],
        on_bad: Callable[[FrameError], None],
        on_connect: Callable[[bool], None] = lambda _: None,
    ) -> None:
        self.scan = ""
        """Scan id of the frames that name none."""
        self._settings = settings
        self._sink = sink
        self._on_bad = on_bad
        self._on_connect = on_connect
        self._wanted = frozenset({settings.scan_attribute, *settings.attributes} - {""})
        self._updates = pva.PvObjectQueue(settings.queue_size)
        self._channel = pva.Channel(settings.channel, pva.PVA)
        self._stopping = threading.Event()
        self._connected = False
        self._thread = threading.Thread(target=self._run, name="receiver", daemon=True)

    @property
    def connected(self) -> bool:
        return self._connected

    @property
    def overruns(self) -> int:
        """Updates that came while the queue was full; they show as missed frames too."""
        return int(self._updates.getCounters().get("nRejected", 0))

    def start(self) -> None:
        """Subscribe. A channel that is not there yet is connected to when it comes."""
        # No setConnectionCallback: pvaccess keeps one saved GIL state for all threads, and a callback that meets
        # qMonitor's own ends the process ("the GIL is released"). The connection is asked for instead.
        self._channel.qMonitor(self._updates, PV_REQUEST.format(queue=self._settings.queue_size))
        self._thread.start()

    def stop(self) -> None:
        """Unsubscribe, and hand on what has come. `on_connect` is not called any more."""
        if self._thread.ident is None:
            return
        self._channel.stopMonitor()
        self._stopping.set()
        self._updates.cancelWaitForPut()
        self._thread.join()

    def _connection_changed(self, connected: bool) -> None:
        if connected == self._connected:
            return
        self._connected = connected
        _log.info("%s %s", self._settings.channel, "connected" if connected else "disconnected")
        self._on_connect(connected)

    def _run(self) -> None:
        while True:
            try:
                update = self._updates.get(_IDLE_S)
            except pva.QueueEmpty:
                update = None
            self._connection_changed(self._channel.isConnected())
            if update is None and self._stopping.is_set():
                return
            while update is not None:
                try:
                    self._handle(update)
                except Exception:  # noqa: BLE001 - the thread's outermost: one update must not end the stream
                    _log.exception("an update of %s was lost", self._settings.channel)
                update = self._next()
            self._stopping.wait(_REST_S)

    def _next(self) -> pva.PvObject | None:
        try:
            return self._updates.get()
        except pva.QueueEmpty:
            return None

    def _handle(self, update: pva.PvObject) -> None:
        try:
            raw = decode(update, self._wanted)
        except FrameError as error:
            self._on_bad(error)
            return
        if raw is not None:
            self._sink(self._frame(raw))

    def _frame(self, raw: RawArray) -> Frame:
        now = time.time()
        named = raw.attributes.get(self._settings.scan_attribute)
        scan = self.scan if named is None else str(named)
        return Frame(scan, raw.raw_id, raw.time or now, raw.array, raw.attributes, now)
