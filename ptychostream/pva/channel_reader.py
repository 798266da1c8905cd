"""A PV Access channel read in a thread of its own: every update in order, connected again when it comes back."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from ptychostream.pva.monitors import Monitor, P4pMonitor

_log = logging.getLogger(__name__)
_IDLE_S = 0.1  # how often a thread without updates looks whether it is to stop
_ANEW_S = 10.0  # decision 11: longer than a server of pvAccessCPP is held up by a connection that is given up
_LINGER_S = 5.0  # how long a connection may take that `stop` finds under way
_MOST = 256  # updates taken at once, so that a reader that is behind stops soon and holds no more than these


def each(take: Callable[[Any], None]) -> Callable[[Sequence[Any]], None]:
    """Takes updates one by one. What `take` raises costs that update alone."""

    def take_all(updates: Sequence[Any]) -> None:
        for update in updates:
            try:
                take(update)
            except Exception:  # noqa: BLE001 - one update must not end the stream
                _log.exception("an update was lost")

    return take_all


class ChannelReader:
    """Subscribes to a channel and hands on what comes.

    Parameters
    ----------
    channel
        Its name.
    fields
        The fields wanted, as in a pvRequest: `field(value,timeStamp)`.
    queue_size
        Updates held on either side of the connection, so that a reader that is held up loses nothing until both are
        full. No flow control (`pipeline`) is asked for: servers of pvAccessCPP, ADCore's and pvapy's, then send
        updates twice.
    take
        Gets the updates that have come since the last call, in order; see `each`. What it raises costs all of these.
    on_connect
        Told True and False as the channel comes and goes. Both are called in the reader's thread, of name `name`.
    rest_s
        Rest after an update before the next are taken: waking for each costs more than handling it at high rates.
    monitor
        Opens the monitor of the channel with this name and pvRequest.

    Attributes
    ----------
    attributes
        Names of the NTAttributes that the monitor is to read, where it reads them.
    """

    def __init__(
        self,
        channel: str,
        fields: str,
        queue_size: int,
        take: Callable[[Sequence[Any]], None],
        on_connect: Callable[[bool], None],
        *,
        name: str,
        rest_s: float = 0.0,
        monitor: Callable[[str, str], Monitor] = P4pMonitor,
    ) -> None:
        self.connected = False
        self.attributes: tuple[str, ...] = ()
        self._channel = channel
        self._take = take
        self._on_connect = on_connect
        self._rest_s = rest_s
        self._monitor = monitor(channel, f"record[queueSize={queue_size}]{fields}")
        self._stopping = False
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Subscribe. A channel that is not there yet is connected to when it comes."""
        self._thread.start()

    def stop(self) -> None:
        """Hand on what has come, and nothing any more. A connection that is being made is closed when it is made."""
        if self._thread.ident is None:
            self._monitor.close()
            return
        self._stopping = True
        self._monitor.wake()
        self._stopped.wait()

    def _run(self) -> None:
        self._monitor.subscribe()
        anew_at = time.monotonic() + _ANEW_S
        while not self._stopping:
            self._monitor.wait(_IDLE_S, self._rest_s)
            self._drain()
            now = time.monotonic()
            if self.connected:
                anew_at = now + _ANEW_S
            elif now > anew_at:
                self._search_anew()
                anew_at = now + _ANEW_S
        self._drain()
        self._stopped.set()
        self._leave()
        self._monitor.close()

    def _search_anew(self) -> None:
        """A new channel is searched for after 0, 1, 2, 4 and 7 s: each gap is a second longer than the one before."""
        self._monitor.unsubscribe()
        self._monitor.forget()
        self._monitor.subscribe()

    def _leave(self) -> None:
        """Unsubscribe, when the handshake that may be under way is done (decision 11)."""
        deadline = time.monotonic() + _LINGER_S
        connected = self.connected
        while not connected and (left := deadline - time.monotonic()) > 0:
            self._monitor.wait(left, 0.0)
            while updates := self._monitor.take((), _MOST):
                connected = not isinstance(updates[-1], str | None)
        self._monitor.unsubscribe()

    def _drain(self) -> None:
        """Hand on what has come. A subscription that the server has ended, or refused, is closed."""
        while updates := self._monitor.take(self.attributes, _MOST):
            data: list[Any] = []
            for update in updates:
                if not isinstance(update, str | None):
                    data.append(update)
                    continue
                self._hand_on(data)
                data = []
                self._connection_changed(False)
                if update is not None:
                    _log.warning("%s ended the subscription: %s", self._channel, update)
                    self._monitor.unsubscribe()
            self._hand_on(data)

    def _hand_on(self, data: list[Any]) -> None:
        if not data:
            return
        self._connection_changed(True)
        try:
            self._take(data)
        except Exception:  # noqa: BLE001 - the thread's outermost: what one update does must not end the stream
            _log.exception("%d updates of %s were lost", len(data), self._channel)

    def _connection_changed(self, connected: bool) -> None:
        if connected == self.connected:
            return
        self.connected = connected
        _log.info("%s %s", self._channel, "connected" if connected else "disconnected")
        try:
            self._on_connect(connected)
        except Exception:  # noqa: BLE001 - as above
            _log.exception("%s: what follows the connection failed", self._channel)
