"""One browser: what it has got, and what it gets next.

A browser gets the state, not a queue of updates: each message holds what has changed since its last one. A slow browser
therefore gets fewer images, never older ones, and costs no memory.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections import defaultdict, deque
from collections.abc import Callable, Mapping
from typing import Any

from aiohttp import WSCloseCode, WSMsgType, web

from ptychostream.errors import StreamError
from ptychostream.web.ioc_view import IocView
from ptychostream.web.requests import Show, read_request

log = logging.getLogger(__name__)

FIGURES_S = 0.2
"""Time between two messages with figures."""
LESSER_S = 1.0
"""Time between two images of a channel that is not the main one."""
IN_FLIGHT = 2
"""Images of one channel that the browser has not drawn yet; no more are sent."""
SEND_S = 10.0
"""A browser that takes no data for so long is let go."""
MOST_REQUESTS = 300
"""Requests of one browser per second."""


class Session:
    """Serves one browser until it leaves.

    Parameters
    ----------
    socket
        The open WebSocket.
    views
        The IOCs by prefix.
    describe
        Gives the state of all IOCs, for the page's head.
    rate_hz
        Images of the main channel per second, at most.
    """

    def __init__(
        self,
        socket: web.WebSocketResponse,
        views: Mapping[str, IocView],
        describe: Callable[[], list[dict[str, Any]]],
        rate_hz: float,
    ) -> None:
        self._socket = socket
        self._views = views
        self._describe = describe
        self._gap_s = 1.0 / rate_hz
        self._wake = asyncio.Event()
        self._requests: deque[float] = deque(maxlen=MOST_REQUESTS)
        self._described: list[dict[str, Any]] = []
        self._show(next(iter(views.values())), ())

    def wake(self) -> None:
        """Something may have changed."""
        self._wake.set()

    async def leave(self) -> None:
        """The server ends."""
        await self._socket.close(code=WSCloseCode.GOING_AWAY, message=b"ptychostream web has ended")

    async def run(self) -> bool:
        """Serve until the browser leaves or breaks the rules. False: it takes no data, and its connection is stuck."""
        tasks = [asyncio.create_task(self._write()), asyncio.create_task(self._read())]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            ends = await asyncio.gather(*tasks, return_exceptions=True)
        for end in ends:
            if isinstance(end, asyncio.TimeoutError):
                log.warning("a browser is let go: it took no data for %.0f s", SEND_S)
                return False
            if isinstance(end, Exception) and not isinstance(end, ConnectionError):
                log.error("a browser is let go", exc_info=end)
        return True

    def _show(self, view: IocView, images: tuple[str, ...]) -> None:
        if getattr(self, "_view", None) is not view:
            self._view = view
            self._stamp, self._event, self._place = 0, 0, 0
        self._shown = images
        self._sent: dict[str, int] = {}
        self._sent_s: dict[str, float] = defaultdict(float)
        self._in_flight: dict[str, int] = defaultdict(int)

    async def _read(self) -> None:
        async for message in self._socket:
            if message.type is not WSMsgType.TEXT:
                await self._refuse(WSCloseCode.UNSUPPORTED_DATA, "send text")
                return
            now = time.monotonic()
            if len(self._requests) == MOST_REQUESTS and now - self._requests[0] < 1.0:
                await self._refuse(WSCloseCode.POLICY_VIOLATION, f"more than {MOST_REQUESTS} requests in a second")
                return
            self._requests.append(now)
            try:
                self._obey(message.data)
            except StreamError as error:
                await self._refuse(WSCloseCode.POLICY_VIOLATION, str(error))
                return

    def _obey(self, text: str) -> None:
        request = read_request(text)
        if isinstance(request, Show):
            view = self._views.get(request.ioc)
            if view is None:
                known = ", ".join(self._views)
                raise StreamError(f"{request.ioc!r} is not shown here", where="request", remedy=f"ask for {known}")
            self._show(view, request.images)
        else:
            self._in_flight[request.image] = max(0, self._in_flight[request.image] - 1)
            if request.again:
                self._sent.pop(request.image, None)
        self._wake.set()

    async def _refuse(self, code: int, why: str) -> None:
        log.warning("a browser is let go: %s", why)
        await self._socket.close(code=code, message=why.encode()[:120])

    async def _write(self) -> None:
        figures_s = 0.0
        while not self._socket.closed:
            self._wake.clear()
            if time.monotonic() - figures_s >= FIGURES_S:
                figures_s = time.monotonic()
                await self._send_figures()
            due_s = await self._send_images()
            wait_s = min(figures_s + FIGURES_S, due_s) - time.monotonic()
            if wait_s > 0:
                try:
                    await asyncio.wait_for(self._wake.wait(), wait_s)
                except asyncio.TimeoutError:
                    continue

    async def _send_images(self) -> float:
        """Send the images that are due. Returns when the next one is, if it is there by then."""
        due_s = float("inf")
        for place, name in enumerate(self._shown):
            watch = self._view.image(name)
            if watch is None:
                continue
            watch.want()
            next_s = self._sent_s[name] + (self._gap_s if place == 0 else LESSER_S)
            base = self._sent.get(name, 0)
            if watch.feed.version == base or self._in_flight[name] >= IN_FLIGHT:
                continue
            if next_s > time.monotonic():
                due_s = min(due_s, next_s)
                continue
            shown = self._shown
            message, version = await asyncio.to_thread(watch.feed.message, base)
            if shown is not self._shown:
                return 0.0  # the browser asked for something else meanwhile
            self._sent[name], self._sent_s[name] = version, time.monotonic()
            self._in_flight[name] += 1
            await asyncio.wait_for(self._socket.send_bytes(message), SEND_S)
        return due_s

    async def _send_figures(self) -> None:
        view, told = self._view, self._describe()
        figures: dict[str, Any] = {"tell": "figures", "ioc": view.prefix, "now": time.time()}
        if told != self._described:
            figures["iocs"] = self._described = told
        changed, self._stamp = view.records.changed_since(self._stamp)
        if changed:
            figures["records"] = {
                name: [one.value, one.severity, one.alarm, one.time_s, one.units, one.index]
                for name, one in changed.items()
            }
        if events := view.events.since(self._event):
            figures["events"], self._event = events, events[-1]["number"]
        if places := view.places_since(self._place):
            figures["places"], self._place = places, places[-1][0]
            figures["first_place"] = view.first_place
        if len(figures) > 3:
            await asyncio.wait_for(self._socket.send_str(json.dumps(figures, allow_nan=False)), SEND_S)
