"""PVs watched over PV Access (p4p) or Channel Access (libca, through aioca): every value, in order."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable
from typing import Any, Literal, Protocol

from p4p import Value
from p4p.client.raw import Context

Provider = Literal["ca", "pva"]

_QUEUED = 100


class WatchedPv(Protocol):
    """One PV.

    Attributes
    ----------
    connected
        Whether it answers; up to date after `next`.
    """

    connected: bool

    def next(self) -> tuple[Any] | None:
        """The oldest value that was not taken yet; None: there is none."""

    def close(self) -> None:
        """Unsubscribe."""


class Watcher:
    """Subscribes to PVs of both protocols. PVs of one protocol and one server share a connection: their order is kept.

    Parameters
    ----------
    on_update
        Called in another thread when a PV has something new.
    """

    def __init__(self, on_update: Callable[[], None]) -> None:
        self._on_update = on_update
        self._pva: Context | None = None
        self._ca: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    def watch(self, name: str, provider: Provider) -> WatchedPv:
        """Subscribe to the PV `name`. It may be missing: it is connected to when it comes."""
        if provider == "pva":
            self._pva = self._pva or Context("pva", useenv=True, nt=False)
            return _PvaPv(self._pva, name, self._on_update)
        if self._ca is None:
            self._ca = asyncio.new_event_loop()
            self._thread = threading.Thread(target=self._ca.run_forever, name="channel access", daemon=True)
            self._thread.start()
        return _CaPv(self._ca, name, self._on_update)

    def close(self) -> None:
        """End the clients. Close the PVs first."""
        if self._pva is not None:
            self._pva.close()
        if self._ca is not None and self._thread is not None:
            asyncio.run_coroutine_threadsafe(_close_channels(), self._ca).result()
            self._ca.call_soon_threadsafe(self._ca.stop)
            self._thread.join()
            self._ca.close()


async def _close_channels() -> None:
    """Before their event loop ends: channels call it back."""
    import aioca

    aioca.purge_channel_caches()


class _PvaPv:
    def __init__(self, context: Context, name: str, on_update: Callable[[], None]) -> None:
        self.connected = False
        self._subscription = context.monitor(name, on_update, f"record[queueSize={_QUEUED}]field(value)")

    def next(self) -> tuple[Any] | None:
        while (update := self._subscription.pop()) is not None:
            self.connected = isinstance(update, Value)
            if self.connected:
                value = update["value"]
                return (value.todict() if isinstance(value, Value) else value,)
        return None

    def close(self) -> None:
        self._subscription.close()


class _CaPv:
    def __init__(self, loop: asyncio.AbstractEventLoop, name: str, on_update: Callable[[], None]) -> None:
        self.connected = False
        self._loop = loop
        self._name = name
        self._on_update = on_update
        self._updates: deque[Any] = deque(maxlen=_QUEUED)
        self._subscription = asyncio.run_coroutine_threadsafe(self._subscribe(), loop).result()

    async def _subscribe(self) -> Any:
        import aioca  # loads libca: only where a PV of Channel Access is watched

        text = aioca.DBR_ENUM_STR  # enumerations as texts
        return aioca.camonitor(self._name, self._take, datatype=text, all_updates=True, notify_disconnect=True)

    def _take(self, value: Any) -> None:
        self._updates.append(value)
        self._on_update()

    def next(self) -> tuple[Any] | None:
        while self._updates:
            value = self._updates.popleft()
            self.connected = value.ok
            if self.connected:
                return (value,)
        return None

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._subscription.close)
