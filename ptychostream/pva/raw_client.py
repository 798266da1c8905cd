"""Subscribes to a PVA channel and gives its updates as they are on the wire.

pvapy and p4p turn values into Python's, which has one integer and one float type and no union selections; a recording
that is to be exact reads the bytes themselves. Little is needed: search, connect, one channel, one monitor.
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
from ptychostream.pva import wire
from ptychostream.pva.fields import STRING, STRUCTURE, Field, Layout, copy_value, read_field
from ptychostream.pva.raw_updates import RawUpdate
from ptychostream.pva.search import Address, asking, broadcast_addresses, name_servers, read_answer
from ptychostream.pva.wire import Message, MessageStream, WireError, pack_message, pack_text

_log = logging.getLogger(__name__)
_POLL_S = 0.2
_SEARCH_S = 1.0  # from one search to the next
_CONNECT_S = 5.0
_SILENCE_S = 15.0  # then the server is asked whether it is there; after twice that it is not
_CHANNEL_ID, _REQUEST_ID = 1, 2
_RECEIVE_BYTES = 1 << 18


class ChannelLostError(Exception):
    """The channel went away."""


class RawChannel:
    """Updates of one channel, for as long as it is asked for them; connects again when it was away.

    Parameters
    ----------
    name
        The channel.
    queue_size
        Updates that the server is asked to hold.
    stop
        Ends the iteration.
    seconds
        Ends it too.
    """

    def __init__(self, name: str, queue_size: int, stop: threading.Event, seconds: float | None = None) -> None:
        self.name = name
        self.connected = False
        self.connections = 0
        """How often the channel was there; more than one means that updates may be missing."""
        self._queue_size = queue_size
        self._stop = stop
        self._deadline = None if seconds is None else time.monotonic() + seconds

    def _over(self) -> bool:
        return self._stop.is_set() or (self._deadline is not None and time.monotonic() >= self._deadline)

    def __iter__(self) -> Iterator[RawUpdate]:
        """Raises StreamError when the server refuses the channel or does not speak PVA."""
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
                    f"the server at {address[0]}:{address[1]} sent what is not PVA: {error}",
                    where=self.name,
                    remedy="report this with the server's version",
                ) from error
            finally:
                self.connected = False

    def _updates(self, connection: socket.socket) -> Iterator[RawUpdate]:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.settimeout(_POLL_S)
        cache: dict[int, Field] = {}
        state: _State | None = None
        server_id = 0
        for message in self._messages(connection):
            reader = message.reader()
            if message.control:
                continue
            if message.command == wire.CONNECTION_VALIDATION:
                connection.sendall(_validation())
            elif message.command == wire.CONNECTION_VALIDATED:
                self._check(reader.status())
                connection.sendall(
                    pack_message(wire.CREATE_CHANNEL, struct.pack("<HI", 1, _CHANNEL_ID), pack_text(self.name))
                )
            elif message.command == wire.CREATE_CHANNEL:
                _, server_id = reader.number("I"), reader.number("I")
                self._check(reader.status())
                connection.sendall(_monitor(server_id, wire.INIT, _request(self._queue_size)))
            elif message.command == wire.DESTROY_CHANNEL:
                raise ChannelLostError("the server closed the channel")
            elif message.command == wire.MONITOR and reader.number("I") == _REQUEST_ID:
                subcommand = reader.byte()
                if subcommand & wire.INIT:
                    self._check(reader.status())
                    structure = read_field(reader, cache)
                    if structure is None:
                        raise WireError("a monitor without a type")
                    state = _State(Layout(structure), cache)
                    connection.sendall(_monitor(server_id, wire.START))
                    self.connected = True
                    self.connections += 1
                    _log.info("%s connected", self.name)
                elif subcommand & wire.DESTROY:
                    raise ChannelLostError("the server ended the subscription")
                elif state is not None:
                    yield state.update(reader)

    def _messages(self, connection: socket.socket) -> Iterator[Message]:
        stream, heard, asked = MessageStream(), time.monotonic(), False
        while not self._over():
            try:
                data = connection.recv(_RECEIVE_BYTES)
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
            yield from stream.feed(data)

    def _check(self, status: str) -> None:
        if status:
            raise StreamError(f"refused by its server: {status}", where=self.name, remedy="check the channel's name")


class _State:
    """The channel's values, leaf by leaf: an update brings those that changed."""

    def __init__(self, layout: Layout, cache: dict[int, Field]) -> None:
        self._layout = layout
        self._cache = cache
        self._leaves = list(layout.defaults)

    def update(self, reader: wire.Reader) -> RawUpdate:
        now = time.time_ns()
        changed = self._layout.changed(reader.bits())
        for leaf in changed:
            out: list[bytes] = []
            copy_value(reader, self._layout.leaves[leaf], self._cache, out)
            self._leaves[leaf] = out[0] if len(out) == 1 else b"".join(out)
        overrun = self._layout.changed(reader.bits()) if reader.left else []
        return RawUpdate(now, self._layout.structure, _set(changed), _set(overrun), b"".join(self._leaves))


def _set(leaves: list[int]) -> int:
    return sum(1 << leaf for leaf in leaves)


def _validation() -> bytes:
    nothing = bytes((0xFF,))
    head = struct.pack("<IHH", _RECEIVE_BYTES, 0x7FFF, 0)
    return pack_message(wire.CONNECTION_VALIDATION, head, pack_text("anonymous"), nothing)


def _request(queue_size: int) -> bytes:
    """record[queueSize=…]field(), as a pvRequest."""
    options = Field(STRUCTURE, members=(("queueSize", Field(STRING)),))
    record = Field(STRUCTURE, members=(("_options", options),))
    request = Field(STRUCTURE, members=(("record", record), ("field", Field(STRUCTURE))))
    return request.pack() + pack_text(str(queue_size))


def _monitor(server_id: int, subcommand: int, rest: bytes = b"") -> bytes:
    return pack_message(wire.MONITOR, struct.pack("<IIB", server_id, _REQUEST_ID, subcommand), rest)


def _search(name: str, over: Callable[[], bool]) -> Address | None:
    """Where the channel is served; None when it was over first."""
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
    """What a name server answers over TCP within a second."""
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
