"""From a detector's PV Access channel to frames, in one thread."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from p4p import Value
from p4p.client.raw import Context, Disconnected, Finished, Subscription
from pydantic import Field

from ptychostream.config import Settings
from ptychostream.errors import FrameError
from ptychostream.frames import Frame
from ptychostream.pva.reading import UPDATE_FIELDS, RawArray, decode_value

_log = logging.getLogger(__name__)
_IDLE_S = 0.1  # how often a thread without frames looks whether it is to stop
_REST_S = 0.004
_SEARCH_S = 2.0  # how often a detector that is away is asked for: the library's own searches grow rarer with time


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

    Notes
    -----
    The queue on the server's side is asked for in the pvRequest: a plain monitor drops frames at kilohertz rates. No
    flow control (`pipeline`): servers of pvAccessCPP, ADCore's and pvapy's, then send updates twice. What is lost on
    the way shows as a gap in uniqueId.
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
        self._context = Context("pva", useenv=True, nt=False)
        self._arrived = threading.Event()
        self._stopping = False
        self._connected = False
        self._thread = threading.Thread(target=self._run, name="receiver", daemon=True)

    @property
    def connected(self) -> bool:
        return self._connected

    def start(self) -> None:
        """Subscribe. A channel that is not there yet is connected to when it comes."""
        self._thread.start()

    def stop(self) -> None:
        """Unsubscribe, and hand on what has come. `on_connect` is not called any more."""
        if self._thread.ident is None:
            return
        self._stopping = True
        self._arrived.set()
        self._thread.join()

    def _subscribe(self) -> Subscription:
        request = f"record[queueSize={self._settings.queue_size}]{UPDATE_FIELDS}"
        return self._context.monitor(self._settings.channel, self._arrived.set, request)

    def _connection_changed(self, connected: bool) -> None:
        if connected == self._connected:
            return
        self._connected = connected
        _log.info("%s %s", self._settings.channel, "connected" if connected else "disconnected")
        self._on_connect(connected)

    def _run(self) -> None:
        subscription: Subscription | None = self._subscribe()
        look_again = time.monotonic() + _SEARCH_S
        while not self._stopping:
            if self._arrived.wait(_IDLE_S):
                time.sleep(_REST_S)  # waking for every frame costs more than the frame
                self._arrived.clear()
            if subscription is not None and not self._drain(subscription):
                subscription.close()
                subscription = None
            if not self._connected and time.monotonic() > look_again:
                subscription = subscription or self._subscribe()
                self._context.hurryUp()
                look_again = time.monotonic() + _SEARCH_S
        if subscription is not None:
            self._drain(subscription)
            subscription.close()
        self._context.close()

    def _drain(self, subscription: Subscription) -> bool:
        """Hand on what has come; False when the server has ended the subscription, or refused it."""
        goes_on = True
        while (update := subscription.pop()) is not None:
            try:
                self._connection_changed(isinstance(update, Value))
                if isinstance(update, Value):
                    self._handle(update)
                elif isinstance(update, Finished) or not isinstance(update, Disconnected):
                    _log.warning("%s ended the subscription: %r", self._settings.channel, update)
                    goes_on = False
            except Exception:  # noqa: BLE001 - the thread's outermost: one update must not end the stream
                _log.exception("an update of %s was lost", self._settings.channel)
        return goes_on

    def _handle(self, update: Value) -> None:
        try:
            raw = decode_value(update, self._wanted)
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
