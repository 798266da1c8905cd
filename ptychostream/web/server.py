"""The page's server: HTTP and WebSocket over the views of the IOCs."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from aiohttp import WSCloseCode, web

from ptychostream.errors import StreamError
from ptychostream.web.answers import Answers
from ptychostream.web.catalog import catalog
from ptychostream.web.connections import Connections
from ptychostream.web.guard import COOKIE, Guard, token_for
from ptychostream.web.ioc_view import IocView
from ptychostream.web.requests import LARGEST_REQUEST
from ptychostream.web.session import Session
from ptychostream.web.settings import WebSettings

log = logging.getLogger(__name__)

PAGE = Path(__file__).parent / "page"
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
    "connect-src 'self'; manifest-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}
_BEAT_S = 20.0
_TIDY_S = 5.0
_END_S = 2.0

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class WebServer:
    """Serves the page. All methods run in one event loop.

    Parameters
    ----------
    settings
        The configuration.

    Attributes
    ----------
    address
        Where the page is, with the token if there is one; empty before the start.
    """

    def __init__(self, settings: WebSettings) -> None:
        self.address = ""
        self._settings = settings
        self._token = token_for(settings.token_file, settings.on_loopback)
        self._guard = Guard(self._token, settings.on_loopback, settings.origins)
        entries = catalog()
        self._views = {prefix: IocView(prefix, entries, settings.images, self._image_came) for prefix in settings.iocs}
        self._sessions: set[Session] = set()
        self._answers = Answers(self._views, entries)
        self._started_s = time.time()
        self._refused = 0

    async def start(self) -> None:
        """Open the port, and begin to look for the IOCs.

        Raises
        ------
        StreamError
            The address cannot be served at.
        """
        self._loop = asyncio.get_running_loop()
        application = web.Application(middlewares=[self._checked], client_max_size=LARGEST_REQUEST)
        application.add_routes(
            [
                web.get("/", self._index),
                web.get("/socket", self._socket),
                web.get("/api/server", self._about),
                *self._answers.routes(),
                web.static("/page", PAGE),
            ]
        )
        self._runner = web.AppRunner(application, access_log=None, keepalive_timeout=15.0, shutdown_timeout=_END_S)
        await self._runner.setup()
        assert self._runner.server is not None
        self._connections = Connections(self._runner.server, self._settings.connections)
        host, port = self._settings.host, self._settings.port
        try:
            self._listener = await self._loop.create_server(self._connections, host, port, backlog=64)
        except OSError as error:
            what, remedy = f"cannot be served at: {error.strerror or error}", "give another --host or --port"
            raise StreamError(what, where=f"{host}:{port}", remedy=remedy) from error
        port = self._listener.sockets[0].getsockname()[1]
        shown = f"[{host}]" if ":" in host else host
        self.address = f"http://{shown}:{port}/" + (f"?token={self._token}" if self._token else "")
        for view in self._views.values():
            view.records.start()
        self._keeping = asyncio.create_task(self._keep())

    async def stop(self) -> None:
        """Close everything."""
        self._listener.close()
        self._keeping.cancel()
        await asyncio.gather(*(session.leave() for session in list(self._sessions)), return_exceptions=True)
        await self._runner.cleanup()
        await asyncio.gather(*(asyncio.to_thread(view.stop) for view in self._views.values()))

    def _image_came(self) -> None:
        """In a thread of a subscription."""
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._wake)

    def _wake(self) -> None:
        for session in self._sessions:
            session.wake()

    async def _keep(self) -> None:
        """Sample the history once a second, and close what nobody needs."""
        next_s, tidied_s = time.monotonic(), time.monotonic()
        while True:
            next_s = max(next_s + 1.0, time.monotonic())
            await asyncio.sleep(max(0.0, next_s - time.monotonic()))
            for view in self._views.values():
                view.sample()
            if time.monotonic() - tidied_s > _TIDY_S:
                tidied_s = time.monotonic()
                self._connections.tidy()
                for view in self._views.values():
                    await asyncio.to_thread(view.tidy)

    @web.middleware
    async def _checked(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Refuse what the guard refuses; every answer says what a browser may do with it."""
        self._connections.heard(request.protocol)
        given, cookie = request.query.get("token", ""), request.cookies.get(COOKIE, "")
        status, why = self._guard.refusal(request.headers, given, cookie)
        if status:
            self._refused += 1
            return web.Response(status=status, text=why + "\n", headers=_HEADERS)
        try:
            response = await handler(request)
        except web.HTTPException as error:
            error.headers.update(_HEADERS)
            raise
        if not response.prepared:
            response.headers.update(_HEADERS)
        return response

    async def _index(self, request: web.Request) -> web.StreamResponse:
        if "token" in request.query:
            answer = web.Response(status=303, headers={"Location": "/"})
            answer.set_cookie(COOKIE, self._token, httponly=True, samesite="Strict", secure=request.secure)
            return answer
        return web.FileResponse(PAGE / "index.html")

    async def _about(self, _request: web.Request) -> web.Response:
        """The server itself."""
        about = {
            "browsers": len(self._sessions),
            "most_browsers": self._settings.clients,
            "connections": len(self._runner.server.connections) if self._runner.server else 0,
            "connections_refused": self._connections.refused,
            "requests_refused": self._refused,
            "seconds": round(time.time() - self._started_s, 1),
        }
        return web.json_response(about)

    async def _socket(self, request: web.Request) -> web.StreamResponse:
        socket = web.WebSocketResponse(max_msg_size=LARGEST_REQUEST, heartbeat=_BEAT_S, compress=False)
        await socket.prepare(request)
        if len(self._sessions) >= self._settings.clients:
            why = f"{len(self._sessions)} browsers are served, and no more may be: raise clients"
            await socket.close(code=WSCloseCode.TRY_AGAIN_LATER, message=why.encode())
            return socket
        session = Session(socket, self._views, self._answers.described, self._settings.image_rate_hz)
        self._sessions.add(session)
        try:
            if not await session.run() and request.transport is not None:
                request.transport.abort()
        finally:
            self._sessions.discard(session)
        return socket
