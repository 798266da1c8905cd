"""Read a PV Access channel in a separate thread: all updates in order. It connects again after a disconnection."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from ptychostream.pva.monitors import Monitor, P4pMonitor

_log = logging.getLogger(__name__)
_IDLE_S = 0.1  # a thread without updates checks this often whether it must stop
_ANEW_S = 10.0  # decision 11: longer than an abandoned connection blocks a server of pvAccessCPP
_LINGER_S = 5.0  # longest time that `stop` gives a connection in its handshake
_MOST = 256  # updates taken at once, so that a reader with a backlog stops soon and has few updates in memory


def each(take: Callable[[Any], None]) -> Callable[[Sequence[Any]], None]:
    """A function that passes updates to `take` one by one. An error of `take` loses only that update."""

    def take_all(updates: Sequence[Any]) -> None:
        for update in updates:
            try:
                take(update)
            except Exception:  # noqa: BLE001 - one update must not end the stream
                _log.exception("an update was lost")

    return take_all


class ChannelReader:
    """Subscribes to a channel and passes its updates on.

    Parameters
    ----------
    channel
        Name of the channel.
    fields
        The requested fields, as in a pvRequest: `field(value,timeStamp)`.
    queue_size
        Length of the queues on both sides of the connection, in updates. A blocked reader loses nothing until both are
        full. Flow control (`pipeline`) is not requested, because servers of pvAccessCPP (ADCore, pvapy) then send
        updates twice.
    take
        Called with the updates since the last call, in order (see `each`). If it raises, all of these are lost.
    on_connect
        Called with True after a connection and False after a disconnection. Both functions are called in the reader's
        thread, which has the name `name`.
    rest_s
        Pause after an update before the next ones are taken. At high rates, waking up for each update costs more than
        handling it.
    monitor
        Opens the monitor for a channel name and a pvRequest.

    Attributes
    ----------
    attributes
        Names of the NTAttributes to read, for a monitor that reads them itself.
    refusal
        Why the server has ended or refused the subscription; empty after an update.
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
        self.refusal = ""
        self._channel = channel
        self._take = take
        self._on_connect = on_connect
        self._rest_s = rest_s
        self._monitor = monitor(channel, f"record[queueSize={queue_size}]{fields}")
        self._stopping = False
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Subscribe. If the channel does not exist yet, it is connected when it appears."""
        self._thread.start()

    def stop(self) -> None:
        """Pass on the updates until now, and stop. A connection in its handshake is closed after the handshake."""
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
        """Search the channel anew. The client searches after 0, 1, 2, 4 and 7 s: each gap is one second longer."""
        self._monitor.unsubscribe()
        self._monitor.forget()
        self._monitor.subscribe()

    def _leave(self) -> None:
        """Unsubscribe after the end of a running handshake (decision 11)."""
        deadline = time.monotonic() + _LINGER_S
        connected = self.connected
        while not connected and (left := deadline - time.monotonic()) > 0:
            self._monitor.wait(left, 0.0)
            while updates := self._monitor.take((), _MOST):
                connected = not isinstance(updates[-1], str | None)
        self._monitor.unsubscribe()

    def _drain(self) -> None:
        """Pass on the updates until now. A subscription that the server ended or refused is closed."""
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
                    self.refusal = update
                    _log.warning("%s ended the subscription: %s", self._channel, update)
                    self._monitor.unsubscribe()
            self._hand_on(data)

    def _hand_on(self, data: list[Any]) -> None:
        if not data:
            return
        self.refusal = ""
        self._connection_changed(True)
        try:
            self._take(data)
        except Exception:  # noqa: BLE001 - the thread's outermost loop: one update must not end the stream
            _log.exception("%d updates of %s were lost", len(data), self._channel)

    def _connection_changed(self, connected: bool) -> None:
        if connected == self.connected:
            return
        self.connected = connected
        _log.info("%s %s", self._channel, "connected" if connected else "disconnected")
        try:
            self._on_connect(connected)
        except Exception:  # noqa: BLE001 - see above
            _log.exception("%s: the action after a change of the connection failed", self._channel)
