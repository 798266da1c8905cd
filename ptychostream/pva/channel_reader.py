"""A PV Access channel read in a thread of its own: every update in order, connected again when it comes back."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from p4p import Value
from p4p.client.raw import Context, Disconnected, Finished, Subscription

_log = logging.getLogger(__name__)
_IDLE_S = 0.1  # how often a thread without updates looks whether it is to stop
_ANEW_S = 10.0  # decision 11: longer than a server of pvAccessCPP is held up by a connection that is given up
_LINGER_S = 5.0  # how long a connection may take that `stop` finds under way


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
        Gets every update. What it raises costs that update alone.
    on_connect
        Told True and False as the channel comes and goes. Both are called in the reader's thread, of name `name`.
    rest_s
        Rest after an update before the next are taken: waking for each costs more than handling it at high rates.
    """

    def __init__(
        self,
        channel: str,
        fields: str,
        queue_size: int,
        take: Callable[[Value], None],
        on_connect: Callable[[bool], None],
        *,
        name: str,
        rest_s: float = 0.0,
    ) -> None:
        self.connected = False
        self._channel = channel
        self._request = f"record[queueSize={queue_size}]{fields}"
        self._take = take
        self._on_connect = on_connect
        self._rest_s = rest_s
        self._context = Context("pva", useenv=True, nt=False)
        self._arrived = threading.Event()
        self._stopping = False
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Subscribe. A channel that is not there yet is connected to when it comes."""
        self._thread.start()

    def stop(self) -> None:
        """Hand on what has come, and nothing any more. A connection that is being made is closed when it is made."""
        if self._thread.ident is None:
            self._context.close()
            return
        self._stopping = True
        self._arrived.set()
        self._stopped.wait()

    def _subscribe(self) -> Subscription:
        return self._context.monitor(self._channel, self._arrived.set, self._request)

    def _run(self) -> None:
        subscription: Subscription | None = self._subscribe()
        anew_at = time.monotonic() + _ANEW_S
        while not self._stopping:
            if self._arrived.wait(_IDLE_S):
                if self._rest_s:
                    time.sleep(self._rest_s)
                self._arrived.clear()
            if subscription is not None and not self._drain(subscription):
                subscription.close()
                subscription = None
            now = time.monotonic()
            if self.connected:
                anew_at = now + _ANEW_S
            elif now > anew_at:
                subscription = self._anew(subscription)
                anew_at = now + _ANEW_S
        if subscription is not None:
            self._drain(subscription)
        self._stopped.set()
        if subscription is not None:
            self._leave(subscription)
        self._context.close()

    def _anew(self, subscription: Subscription | None) -> Subscription:
        """A new channel is searched for after 0, 1, 2, 4 and 7 s: each gap is a second longer than the one before."""
        if subscription is not None:
            subscription.close()
            self._context.disconnect(self._channel)
        return self._subscribe()

    def _leave(self, subscription: Subscription) -> None:
        """Unsubscribe, when the handshake that may be under way is done (decision 11)."""
        deadline = time.monotonic() + _LINGER_S
        connected = self.connected
        while not connected and (left := deadline - time.monotonic()) > 0:
            self._arrived.wait(left)
            self._arrived.clear()
            while (update := subscription.pop()) is not None:
                connected = isinstance(update, Value)
        subscription.close()

    def _drain(self, subscription: Subscription) -> bool:
        """Hand on what has come; False when the server has ended the subscription, or refused it."""
        goes_on = True
        while (update := subscription.pop()) is not None:
            try:
                self._connection_changed(isinstance(update, Value))
                if isinstance(update, Value):
                    self._take(update)
                elif isinstance(update, Finished) or not isinstance(update, Disconnected):
                    _log.warning("%s ended the subscription: %r", self._channel, update)
                    goes_on = False
            except Exception:  # noqa: BLE001 - the thread's outermost: one update must not end the stream
                _log.exception("an update of %s was lost", self._channel)
        return goes_on

    def _connection_changed(self, connected: bool) -> None:
        if connected == self.connected:
            return
        self.connected = connected
        _log.info("%s %s", self._channel, "connected" if connected else "disconnected")
        self._on_connect(connected)
