"""A limit on connections, and on connections that never ask for anything."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from aiohttp import web

SILENT_S = 10.0
"""A connection that has sent no complete request after this time is closed."""
_FULL = (
    b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: text/plain\r\nConnection: close\r\n\r\n"
    b"this server has as many connections as it may have; see [connections] of ptychostream web\n"
)


class _Refusal(asyncio.Protocol):
    """Answers a connection that is one too many, and closes it."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        transport.write(_FULL)
        transport.close()


class Connections:
    """Makes the protocol of each new connection, for `loop.create_server`.

    Parameters
    ----------
    server
        aiohttp's server.
    most
        Connections at once.
    """

    def __init__(self, server: web.Server, most: int) -> None:
        self.refused = 0
        self._server = server
        self._most = most
        self._silent: dict[Any, float] = {}

    def __call__(self) -> asyncio.Protocol:
        if len(self._server.connections) >= self._most:
            self.refused += 1
            return _Refusal()
        protocol = self._server()
        self._silent[protocol] = time.monotonic()
        return protocol

    def heard(self, protocol: object) -> None:
        """A connection has sent a complete request."""
        self._silent.pop(protocol, None)

    def tidy(self) -> None:
        """Close connections that have been silent for too long."""
        now = time.monotonic()
        for protocol, since in list(self._silent.items()):
            if now - since > SILENT_S:
                del self._silent[protocol]
                protocol.force_close()
