"""Serve recorded PVA updates byte for byte.

An asyncio loop in its own thread serves the clients. The replaying thread only passes updates to it. Clients may get,
ask for the type, and subscribe. They cannot write.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import secrets
import socket
import struct
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from ptychostream.errors import StreamError
from ptychostream.rawpva import search, wire
from ptychostream.rawpva.raw_session import ServedChannel, Session
from ptychostream.rawpva.raw_values import RawUpdate
from ptychostream.rawpva.wire import Message, MessageStream, WireError

_log = logging.getLogger(__name__)
_READ_BYTES = 1 << 16
_BEACON_S = (0.1, 0.5, 1.0, 2.0, 5.0, 15.0)  # intervals after the start; the last one repeats
_STOP_S = 5.0


class RawServer:
    """A PVA server of the given channels. A channel exists after its first type is known.

    Parameters
    ----------
    channels
        Names of the channels.
    environment
        EPICS variables for a server. None takes those of this process.

    Raises
    ------
    StreamError
        No port is free.
    """

    def __init__(self, channels: Iterable[str], environment: Mapping[str, str] | None = None) -> None:
        self._environment = dict(os.environ if environment is None else environment)
        self._channels = {name: ServedChannel(name) for name in channels}
        self._guid = secrets.token_bytes(12)
        self._sessions: set[Session] = set()
        self._loop = asyncio.new_event_loop()
        self._ended: asyncio.Event
        self._started = threading.Event()
        self._failure: OSError | None = None
        self.port = 0
        self._thread = threading.Thread(target=self._run, name="raw server", daemon=True)
        self._thread.start()
        self._started.wait()
        if self._failure is not None:
            self._thread.join()
            raise StreamError(
                f"cannot be served: {self._failure}",
                where=", ".join(self._channels),
                remedy="check the EPICS_PVAS_* variables and the port",
            )

    def publish(self, channel: str, update: RawUpdate) -> None:
        """Send an update to the channel's subscribers, and keep it for later ones.

        If the type differs from that of the last update, the connections of the clients are closed. Clients connect
        again by themselves.
        """
        self._call(lambda: self._publish(self._channels[channel], update))

    def publish_split(self, channel: str, updates: Sequence[list[bytes]]) -> None:
        """Hand updates over, each as the values of the type's leaves, all of them changed; see `Layout.split`."""
        self._call(lambda: self._channels[channel].publish_split(updates))

    def announce(self, channel: str, update: RawUpdate) -> None:
        """Let clients connect and subscribe to this update's type. They get no update before the next `publish`."""
        self._call(lambda: self._take_type(self._channels[channel], update))

    def monitors(self, channel: str) -> int:
        """The number of running subscriptions."""
        return self._call(lambda: len(self._channels[channel].monitors))

    def overruns(self, channel: str) -> int:
        """The number of updates that were merged into a later one because a client's queue was full."""
        return self._call(lambda: self._channels[channel].overruns)

    def waiting(self, channel: str) -> int:
        """The largest number of updates that wait to be sent to one client."""
        return self._call(lambda: max((len(m.queue) for m in self._channels[channel].monitors), default=0))

    def close(self) -> None:
        """Close all connections."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._ended.set)
        self._thread.join()

    def __enter__(self) -> RawServer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _call(self, act: Callable[[], Any]) -> Any:
        async def called() -> Any:
            return act()

        return asyncio.run_coroutine_threadsafe(called(), self._loop).result()

    def _publish(self, channel: ServedChannel, update: RawUpdate) -> None:
        self._take_type(channel, update)
        channel.publish(update)

    def _take_type(self, channel: ServedChannel, update: RawUpdate) -> None:
        if channel.take_type(update.type):
            for session in list(self._sessions):
                session.close()

    # ------------------------------------------------------------ in the thread of the loop

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_until_complete(self._serve())
        finally:
            self._loop.close()

    async def _serve(self) -> None:
        self._ended = asyncio.Event()
        host = search.interface(self._environment)
        try:
            server = await self._listen(host)
            self.port = server.sockets[0].getsockname()[1]
            udp = await self._loop.create_datagram_endpoint(
                lambda: _Searches(self._answer),
                sock=_search_socket(search.broadcast_port(self._environment, True), host),
            )
            group = await self._loop.create_datagram_endpoint(
                lambda: _Searches(self._answer),
                sock=_search_socket(search.broadcast_port(self._environment, True), search.LOCAL_GROUP),
            )
        except OSError as error:
            self._failure = error
            self._started.set()
            return
        self._udp = udp[0]
        beacons = self._loop.create_task(self._beacons())
        self._started.set()
        async with server:
            await self._ended.wait()
            beacons.cancel()
            for session in list(self._sessions):
                session.close()
            udp[0].close()
            group[0].close()
        pending = [task for task in asyncio.all_tasks(self._loop) if task is not asyncio.current_task()]
        if pending:
            await asyncio.wait(pending, timeout=_STOP_S)

    async def _listen(self, host: str) -> asyncio.Server:
        """Listen on the requested port, or on another one if it is taken, like other PVA servers."""
        try:
            return await asyncio.start_server(self._connected, host, search.server_port(self._environment))
        except OSError:
            return await asyncio.start_server(self._connected, host, 0)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = writer.get_extra_info("peername")
        session = Session(self._channels, writer, self._guid, self.port)
        self._sessions.add(session)
        stream = MessageStream()
        sender = self._loop.create_task(session.send_updates())
        try:
            session.greet()
            while data := await reader.read(_READ_BYTES):
                for message in stream.feed(data):
                    session.handle(message)
                await writer.drain()
        except (OSError, WireError, struct.error) as error:
            _log.info("client %s: %s", peer, error)
        finally:
            self._sessions.discard(session)
            session.close()
            sender.cancel()
            with contextlib.suppress(asyncio.CancelledError, OSError):
                await sender

    def _answer(self, message: Message, sender: search.Address) -> None:
        if message.control or message.command != wire.SEARCH:
            return
        asked = search.read_search(message, sender[0])
        if asked is None:
            return
        found = [n for n, name in asked.names.items() if name in self._channels and self._channels[name].type]
        if found:
            reply_to = asked.reply_to if asked.reply_to[0] != "0.0.0.0" else (sender[0], asked.reply_to[1])
            self._udp.sendto(search.pack_answer(self._guid, asked.sequence, self.port, found), reply_to)
        if asked.flags & search.UNICAST:  # only one server of a host gets a unicast datagram
            passed_on = search.pack_origin() + search.pack_search(asked._replace(flags=asked.flags & ~search.UNICAST))
            port = search.broadcast_port(self._environment, True)
            self._udp.sendto(passed_on, (search.LOCAL_GROUP, port))

    async def _beacons(self) -> None:
        sequence, port = 0, search.broadcast_port(self._environment, True)
        while True:
            await asyncio.sleep(_BEACON_S[min(sequence, len(_BEACON_S) - 1)])
            for address in search.broadcast_addresses(self._environment, True):
                self._udp.sendto(search.pack_beacon(self._guid, sequence, self.port), address)
            self._udp.sendto(search.pack_beacon(self._guid, sequence, self.port), (search.LOCAL_GROUP, port))
            sequence += 1


class _Searches(asyncio.DatagramProtocol):
    def __init__(self, answer: Callable[[Message, search.Address], None]) -> None:
        self._answer = answer

    def datagram_received(self, data: bytes, addr: search.Address) -> None:
        try:
            for message in MessageStream().feed(data):
                self._answer(message, addr)
        except WireError as error:
            _log.debug("a datagram from %s: %s", addr, error)

    def error_received(self, exc: Exception) -> None:
        _log.debug("search: %s", exc)


def _search_socket(port: int, host: str) -> socket.socket:
    """A UDP socket that shares the broadcast port with other servers and clients of the host."""
    udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    try:
        udp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        udp.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        udp.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton("127.0.0.1"))
        udp.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_LOOP, 1)
        udp.setblocking(False)
        udp.bind((host, port))
        if host == search.LOCAL_GROUP:
            joined = socket.inet_aton(search.LOCAL_GROUP) + socket.inet_aton("127.0.0.1")
            udp.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, joined)
    except OSError:
        udp.close()
        raise
    return udp
