"""Subscribe to a PVA channel and return its updates as they are on the wire.

pvapy and p4p convert values to Python's types: one integer type, one float type, and no selection of a union. An exact
recording must therefore read the bytes. It needs search, connection, one channel and one monitor.
"""

from __future__ import annotations

import logging
import os
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator

from ptychostream.errors import StreamError
from ptychostream.rawpva import wire
from ptychostream.rawpva.fields import STRING, STRUCTURE, Field
from ptychostream.rawpva.raw_values import Decoder, WireType, WireUpdate, WireUpdates
from ptychostream.rawpva.search import Address, asking, broadcast_addresses, name_servers, read_answer
from ptychostream.rawpva.wire import Message, MessageStream, WireError, pack_message, pack_text

_log = logging.getLogger(__name__)
_POLL_S = 0.2
_SEARCH_S = 1.0  # time between two searches
_CONNECT_S = 5.0
_SILENCE_S = 15.0  # then an echo is sent; after twice this time the server counts as gone
_CHANNEL_ID, _REQUEST_ID = 1, 2
_RECEIVE_BYTES = 1 << 18  # announced to the server
_READ_BYTES = 1 << 20  # largest read from the socket


class ChannelLostError(Exception):
    """The channel was lost."""


class RawChannel:
    """Iterates over the updates of one channel. It connects again if the channel is lost.

    Parameters
    ----------
    name
        Name of the channel.
    queue_size
        Requested length of the server's queue, in updates.
    stop
        Event that ends the iteration.
    seconds
        Time after which the iteration ends.
    """

    def __init__(self, name: str, queue_size: int, stop: threading.Event, seconds: float | None = None) -> None:
        self.name = name
        self.connected = False
        self.connections = 0
        """The number of connections. If it is above 1, updates may be missing."""
        self._queue_size = queue_size
        self._stop = stop
        self._deadline = None if seconds is None else time.monotonic() + seconds

    def _over(self) -> bool:
        return self._stop.is_set() or (self._deadline is not None and time.monotonic() >= self._deadline)

    def __iter__(self) -> Iterator[WireUpdates]:
        """Yield the updates that arrived together.

        Raises StreamError if the server refuses the channel or does not speak PVA.
        """
        while not self._over():
            address = _search(self.name, self._over)
            if address is None:
                return
            try:
                with socket.create_connection(address, _CONNECT_S) as connection:
                    yield from self._updates(connection)
            except (OSError, ChannelLostError) as error:
                _log.warning("%s: %s", self.name, error or "disconnected")
                self._stop.wait(_POLL_S)
            except WireError as error:
                raise StreamError(
                    f"the server at {address[0]}:{address[1]} sent data that is not PVA: {error}",
                    where=self.name,
                    remedy="report this with the server's version",
                ) from error
            finally:
                self.connected = False

    def _updates(self, connection: socket.socket) -> Iterator[WireUpdates]:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.settimeout(_POLL_S)
        subscription = _Subscription(self.name, self._queue_size, connection.sendall)
        for messages in self._messages(connection):
            failure: ChannelLostError | WireError | None = None
            try:
                for message in messages:
                    subscription.handle(message)
            except (ChannelLostError, WireError) as error:
                failure = error  # the updates before the error are kept
            if subscription.type is not None and not self.connected:
                self.connected = True
                self.connections += 1
                _log.info("%s connected", self.name)
            if subscription.type is not None and subscription.updates:
                yield WireUpdates(subscription.type, subscription.updates)
                subscription.updates = []
            if failure is not None:
                raise failure

    def _messages(self, connection: socket.socket) -> Iterator[Iterator[Message]]:
        """Yield the messages that arrived together. The caller must take all of them."""
        stream, heard, asked = MessageStream(), time.monotonic(), False
        while not self._over():
            try:
                data = connection.recv(_READ_BYTES)
            except TimeoutError:
                silent = time.monotonic() - heard
                if silent > 2 * _SILENCE_S:
                    raise ChannelLostError(f"the server has been silent for {silent:.0f} s") from None
                if silent > _SILENCE_S and not asked:
                    connection.sendall(pack_message(wire.ECHO))
                    asked = True
                continue
            if not data:
                raise ChannelLostError("the server closed the connection")
            heard, asked = time.monotonic(), False
            yield stream.feed(data)


class _Subscription:
    """The protocol on one connection: create channel and monitor, then receive updates.

    Attributes
    ----------
    type
        Type of the channel. None until the monitor is created.
    updates
        Received updates. The caller takes them and clears the list.
    """

    def __init__(self, channel: str, queue_size: int, say: Callable[[bytes], None]) -> None:
        self.type: WireType | None = None
        self.updates: list[WireUpdate] = []
        self._channel = channel
        self._queue_size = queue_size
        self._say = say
        self._server_id = 0
        self._first: Decoder | None = None

    def handle(self, message: Message) -> None:
        """Handle a message. Raises WireError (invalid), StreamError (refused) or ChannelLostError (closed)."""
        if message.control:
            return
        reader = message.reader()
        if message.command == wire.MONITOR:
            if reader.number("I") == _REQUEST_ID:
                self._monitor(reader.byte(), reader)
        elif message.command == wire.CONNECTION_VALIDATION:
            self._say(_validation())
        elif message.command == wire.CONNECTION_VALIDATED:
            self._check(reader.status())
            channel = struct.pack("<HI", 1, _CHANNEL_ID), pack_text(self._channel)
            self._say(pack_message(wire.CREATE_CHANNEL, *channel))
        elif message.command == wire.CREATE_CHANNEL:
            _, self._server_id = reader.number("I"), reader.number("I")
            self._check(reader.status())
            self._say(_monitor(self._server_id, wire.INIT, _request(self._queue_size)))
        elif message.command == wire.DESTROY_CHANNEL:
            raise ChannelLostError("the server closed the channel")

    def _monitor(self, subcommand: int, reader: wire.Reader) -> None:
        if subcommand & wire.INIT:
            self._check(reader.status())
            self.type = WireType(reader.big_endian, bytes(reader.take(reader.left)))
            self._first = Decoder(self.type)
            self._say(_monitor(self._server_id, wire.START))
        elif subcommand & wire.DESTROY:
            raise ChannelLostError("the server ended the subscription")
        elif self.type is not None:
            update = WireUpdate(time.time_ns(), reader.take(reader.left))
            if self._first is not None:  # check the first update, because a recording that cannot be decoded is useless
                self._first.update(update)
                self._first = None
            elif not update.body:
                raise WireError("an update of no bytes")
            self.updates.append(update)

    def _check(self, status: str) -> None:
        if status:
            raise StreamError(
                f"refused by its server: {status}", where=self._channel, remedy="check the channel's name"
            )


def _validation() -> bytes:
    nothing = bytes((0xFF,))
    head = struct.pack("<IHH", _RECEIVE_BYTES, 0x7FFF, 0)
    return pack_message(wire.CONNECTION_VALIDATION, head, pack_text("anonymous"), nothing)


def _request(queue_size: int) -> bytes:
    """The pvRequest record[queueSize=…]field()."""
    options = Field(STRUCTURE, members=(("queueSize", Field(STRING)),))
    record = Field(STRUCTURE, members=(("_options", options),))
    request = Field(STRUCTURE, members=(("record", record), ("field", Field(STRUCTURE))))
    return request.pack() + pack_text(str(queue_size))


def _monitor(server_id: int, subcommand: int, rest: bytes = b"") -> bytes:
    return pack_message(wire.MONITOR, struct.pack("<IIB", server_id, _REQUEST_ID, subcommand), rest)


def _search(name: str, over: Callable[[], bool]) -> Address | None:
    """The address of the channel's server, or None if `over` became true first."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asker:
        asker.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        asker.bind(("", 0))
        asker.settimeout(_POLL_S)
        question = asking(name, _CHANNEL_ID, asker.getsockname()[1])
        asked = 0.0
        while not over():
            if time.monotonic() - asked >= _SEARCH_S:
                asked = time.monotonic()
                for address in broadcast_addresses(os.environ):
                    try:
                        asker.sendto(question, address)
                    except OSError as error:
                        _log.debug("search to %s:%d: %s", *address, error)
                for server in name_servers(os.environ):
                    found = _ask_name_server(server, question)
                    if found is not None:
                        return found
            try:
                data, sender = asker.recvfrom(1 << 16)
            except TimeoutError:
                continue
            try:
                for message in MessageStream().feed(data):
                    found = read_answer(message, _CHANNEL_ID, sender[0])
                    if found is not None:
                        return found
            except WireError as error:
                _log.debug("an answer from %s: %s", sender[0], error)
    return None


def _ask_name_server(server: Address, question: bytes) -> Address | None:
    """The answer of a name server over TCP within one second, or None."""
    try:
        with socket.create_connection(server, _SEARCH_S) as connection:
            stream, end = MessageStream(), time.monotonic() + _SEARCH_S
            connection.settimeout(_SEARCH_S)
            while time.monotonic() < end:
                data = connection.recv(1 << 16)
                if not data:
                    return None
                for message in stream.feed(data):
                    if message.command == wire.CONNECTION_VALIDATION and not message.control:
                        connection.sendall(_validation())
                    elif message.command == wire.CONNECTION_VALIDATED and not message.control:
                        connection.sendall(question)
                    found = read_answer(message, _CHANNEL_ID, server[0])
                    if found is not None:
                        return found
    except (OSError, WireError) as error:
        _log.debug("name server %s:%d: %s", *server, error)
    return None
