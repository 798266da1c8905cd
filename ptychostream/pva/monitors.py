"""The subscription of a `ChannelReader`: through p4p for any channel, or compiled for a detector's images."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from typing import Any, Protocol

from p4p import Value
from p4p.client.raw import Context, Disconnected, Subscription


class Monitor(Protocol):
    """The monitor of one channel. Any thread may call `wake`. Only one thread may call the other methods."""

    def subscribe(self) -> None:
        """Open the channel and receive its updates. If the channel does not exist, it is searched."""
        ...

    def unsubscribe(self) -> None:
        """Close the subscription if it is open."""
        ...

    def forget(self) -> None:
        """Drop the channel, so that the next `subscribe` searches for it at once."""
        ...

    def wait(self, timeout_s: float, rest_s: float) -> None:
        """Wait for updates or for `wake`, then rest, so that the next `take` finds more than one update."""
        ...

    def wake(self) -> None:
        """End a `wait`."""
        ...

    def take(self, attributes: tuple[str, ...], most: int) -> Sequence[Any]:
        """At most `most` updates in order: data, None for a disconnection, or a text for the end of the subscription.

        Parameters
        ----------
        attributes
            The requested NTAttributes. Only the compiled monitor uses them, because it reads the updates itself.
        """
        ...

    def close(self) -> None:
        """Close the monitor. It cannot be used again."""
        ...


class P4pMonitor:
    """The monitor of p4p. Its updates are `p4p.Value` without an NT handler.

    Parameters
    ----------
    channel
        Name of the channel.
    request
        The pvRequest.
    """

    def __init__(self, channel: str, request: str) -> None:
        self._channel = channel
        self._request = request
        self._context = Context("pva", useenv=True, nt=False)
        self._arrived = threading.Event()
        self._subscription: Subscription | None = None

    def subscribe(self) -> None:
        """See `Monitor.subscribe`."""
        self._subscription = self._context.monitor(self._channel, self._arrived.set, self._request)

    def unsubscribe(self) -> None:
        """See `Monitor.unsubscribe`."""
        if self._subscription is not None:
            self._subscription.close()
            self._subscription = None

    def forget(self) -> None:
        """See `Monitor.forget`."""
        self._context.disconnect(self._channel)

    def wait(self, timeout_s: float, rest_s: float) -> None:
        """See `Monitor.wait`."""
        if self._arrived.wait(timeout_s):
            if rest_s:
                time.sleep(rest_s)
            self._arrived.clear()

    def wake(self) -> None:
        """See `Monitor.wake`."""
        self._arrived.set()

    def take(self, attributes: tuple[str, ...], most: int) -> Sequence[Any]:  # noqa: ARG002 - see `Monitor`
        """See `Monitor.take`. `attributes` has no effect."""
        taken: list[Any] = []
        while self._subscription is not None and len(taken) < most:
            update = self._subscription.pop()
            if update is None:
                break
            told = None if isinstance(update, Disconnected) and not self._subscription.done else repr(update)
            taken.append(update if isinstance(update, Value) else told)
        return taken

    def close(self) -> None:
        """See `Monitor.close`."""
        self._context.close()
