"""The server's protocol for one client, and the state of one channel. It has no sockets."""

from __future__ import annotations

import asyncio
import itertools
import struct
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence

from ptychostream.rawpva import search, wire
from ptychostream.rawpva.fields import STRING, STRUCTURE, Field, Layout, copy_value, read_field, select
from ptychostream.rawpva.raw_values import RawUpdate
from ptychostream.rawpva.wire import (
    STATUS_OK,
    Message,
    Reader,
    pack_bits,
    pack_error,
    pack_message,
    pack_size,
    pack_text,
)

QUEUE_SIZE = 4
"""Queue length of a client that requests none."""
MAX_QUEUE_SIZE = 10_000
_REGISTRY = 0x7FFF


class ServedChannel:
    """The last update of a channel, and its subscriptions."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.type: Field | None = None
        self.layout: Layout | None = None
        self.leaves: list[bytes] | None = None
        self.monitors: list[Monitor] = []
        self.overruns = 0

    def take_type(self, field: Field) -> bool:
        """Set the type. Returns whether clients know the channel with another type."""
        if field is self.type:
            return False
        if field == self.type:  # the same type, recorded from two connections
            self.type = field
            return False
        known = self.type is not None
        self.type, self.layout, self.leaves = field, Layout(field), None
        return known

    def publish(self, update: RawUpdate) -> None:
        assert self.layout is not None
        before = self.layout.defaults if self.leaves is None else self.leaves
        self.leaves = self.layout.split(update.value)
        changed = update.changed
        for leaf, (old, new) in enumerate(zip(before, self.leaves, strict=True)):
            if not changed >> leaf & 1 and old != new:  # in a repeated replay the first update follows the last one
                changed |= 1 << leaf
        for monitor in self.monitors:
            self.overruns += monitor.put(self.leaves, changed, update.overrun)

    def publish_split(self, updates: Sequence[list[bytes]]) -> None:
        """Updates as the values of the type's leaves, all of them changed."""
        for leaves in updates:
            for monitor in self.monitors:
                self.overruns += monitor.put(leaves, (1 << len(leaves)) - 1, 0)
            self.leaves = leaves


class Selection:
    """The part of a channel that a pvRequest selects. `cache` has the types to which the client gave numbers."""

    def __init__(self, channel: ServedChannel, request: Reader, cache: dict[int, Field]) -> None:
        described = read_field(request, cache)
        members = dict(described.members) if described is not None else {}
        assert channel.type is not None
        self.type, self.leaves = select(channel.type, members.get("field", Field(STRUCTURE)))
        self.layout = Layout(self.type)
        self.queue_size = QUEUE_SIZE
        for name, value in _options(request, described, cache):
            if name == "queueSize" and value.isdecimal():
                self.queue_size = max(2, min(int(value), MAX_QUEUE_SIZE))

    def data(self, leaves: list[bytes], changed: list[int] | None = None) -> bytes:
        """Change bits and values of the leaves with the numbers `changed`, or of all leaves if it is None."""
        which = range(len(self.leaves)) if changed is None else changed
        values = b"".join(leaves[self.leaves[number]] for number in which)
        return pack_bits(self.layout.pack_changed(which)) + values


def _options(request: Reader, described: Field | None, cache: dict[int, Field]) -> Iterator[tuple[str, str]]:
    """The record options of a pvRequest that are texts."""

    def walk(field: Field, path: tuple[str, ...]) -> Iterator[tuple[str, str]]:
        for name, member in field.members:
            if member.code == STRUCTURE:
                yield from walk(member, (*path, name))
            elif member.code == STRING:
                text = request.text()
                if path == ("record", "_options"):
                    yield name, text
            else:
                copy_value(request, member, cache, [])

    if described is not None and described.code == STRUCTURE:
        yield from walk(described, ())


class Monitor:
    """One subscription, with a bounded queue of updates to send.

    If the queue is full, the newest update is merged with the last one in it and marks the overrun fields.
    """

    def __init__(self, server_id: int, request_id: int, selection: Selection, ready: asyncio.Event) -> None:
        self.server_id = server_id
        self.request_id = request_id
        self.selection = selection
        self.queue: deque[tuple[list[bytes], int, int]] = deque()
        self._ready = ready

    def put(self, leaves: list[bytes], changed: int, overrun: int) -> int:
        """Queue an update. Returns 1 if it was merged with the one before, else 0."""
        merged = 0
        if len(self.queue) >= self.selection.queue_size:
            _, changed_before, overrun_before = self.queue.pop()
            overrun |= overrun_before | (changed & changed_before)
            changed |= changed_before
            merged = 1
        self.queue.append((leaves, changed, overrun))
        self._ready.set()
        return merged

    def message(self) -> bytes | None:
        """The next update as a message, or None if none of the client's fields changed."""
        leaves, changed, overrun = self.queue.popleft()
        mine = [number for number, leaf in enumerate(self.selection.leaves) if changed >> leaf & 1]
        if changed and not mine:
            return None
        twice = [number for number, leaf in enumerate(self.selection.leaves) if overrun >> leaf & 1]
        bits = pack_bits(self.selection.layout.pack_changed(twice) if twice else 0)
        head = struct.pack("<IB", self.request_id, 0)
        return pack_message(wire.MONITOR, head, self.selection.data(leaves, mine), bits, server=True)


class Session:
    """One client's connection.

    Parameters
    ----------
    channels
        The served channels by name.
    writer
        Sends messages to the client.
    guid, port
        Those of the server, for searches over this connection.
    """

    def __init__(
        self, channels: Mapping[str, ServedChannel], writer: asyncio.StreamWriter, guid: bytes, port: int
    ) -> None:
        self._served = channels
        self._writer = writer
        self._guid, self._port = guid, port
        self._channels: dict[int, ServedChannel] = {}  # by the server's id
        self._gets: dict[int, tuple[ServedChannel, Selection]] = {}  # by the request's id
        self._monitors: dict[int, tuple[ServedChannel, Monitor]] = {}
        self._types: dict[int, Field] = {}
        self._ids = itertools.count(1)
        self._ready = asyncio.Event()
        self._closed = False

    def greet(self) -> None:
        self._writer.write(pack_message(wire.SET_BYTE_ORDER, server=True, control=True))
        head = struct.pack("<IH", 1 << 16, _REGISTRY)
        self._say(wire.CONNECTION_VALIDATION, head, pack_size(1), pack_text("anonymous"))

    def close(self) -> None:
        self._closed = True
        for request_id in list(self._monitors):
            self._stop(request_id)
        self._ready.set()
        self._writer.close()

    async def send_updates(self) -> None:
        """Send the queued updates as fast as the client takes them."""
        while not self._closed:
            await self._ready.wait()
            self._ready.clear()
            while any(monitor.queue for _, monitor in self._monitors.values()):
                for _, monitor in list(self._monitors.values()):
                    if monitor.queue and (message := monitor.message()) is not None:
                        self._writer.write(message)
                await self._writer.drain()

    def handle(self, message: Message) -> None:
        """Handle one message. Raises WireError if it is invalid."""
        if message.control:
            return
        reader = message.reader()
        actions: dict[int, Callable[[Reader], None]] = {
            wire.CONNECTION_VALIDATION: self._validate,
            wire.ECHO: self._echo,
            wire.SEARCH: lambda _: self._search(message),
            wire.CREATE_CHANNEL: self._create_channel,
            wire.DESTROY_CHANNEL: self._destroy_channel,
            wire.GET: self._get,
            wire.MONITOR: self._monitor,
            wire.GET_FIELD: self._get_field,
            wire.DESTROY_REQUEST: self._destroy_request,
            wire.CANCEL_REQUEST: lambda _: None,
        }
        act = actions.get(message.command)
        if act is not None:
            act(reader)
        elif reader.left >= 9:  # put, RPC and others are refused; the answer has the request's id
            _, request_id, subcommand = reader.number("I"), reader.number("I"), reader.byte()
            refused = struct.pack("<IB", request_id, subcommand) + pack_error("a replay accepts no writes")
            self._say(message.command, refused)

    def _say(self, command: int, *parts: bytes) -> None:
        self._writer.write(pack_message(command, *parts, server=True))

    def _validate(self, _: Reader) -> None:
        self._say(wire.CONNECTION_VALIDATED, STATUS_OK)

    def _echo(self, reader: Reader) -> None:
        self._say(wire.ECHO, bytes(reader.take(reader.left)))

    def _search(self, message: Message) -> None:
        asked = search.read_search(message, "")
        if asked is not None:
            found = [number for number, name in asked.names.items() if self._known(name)]
            if found or asked.flags & search.REPLY_REQUIRED:
                self._writer.write(search.pack_answer(self._guid, asked.sequence, self._port, found))

    def _known(self, name: str) -> bool:
        return name in self._served and self._served[name].type is not None

    def _create_channel(self, reader: Reader) -> None:
        for _ in range(reader.number("H")):
            client_id, name = reader.number("I"), reader.text()
            if self._known(name):
                number = next(self._ids)
                self._channels[number] = self._served[name]
                self._say(wire.CREATE_CHANNEL, struct.pack("<II", client_id, number), STATUS_OK)
            else:
                self._say(wire.CREATE_CHANNEL, struct.pack("<Ii", client_id, -1), pack_error(f"no channel {name}"))

    def _destroy_channel(self, reader: Reader) -> None:
        number, client_id = reader.number("I"), reader.number("I")
        for request_id, (_, monitor) in list(self._monitors.items()):
            if monitor.server_id == number:
                self._stop(request_id)
        self._channels.pop(number, None)
        self._say(wire.DESTROY_CHANNEL, struct.pack("<II", number, client_id))

    def _get_field(self, reader: Reader) -> None:
        channel = self._channel(reader)
        request_id, path = reader.number("I"), reader.text()
        field = channel.type
        for name in filter(None, path.split(".")):
            field = dict(field.members).get(name) if field is not None else None
        answer = pack_error(f"no field {path}") if field is None else STATUS_OK + field.pack()
        self._say(wire.GET_FIELD, struct.pack("<I", request_id), answer)

    def _get(self, reader: Reader) -> None:
        channel = self._channel(reader)
        request_id, subcommand = reader.number("I"), reader.byte()
        head = struct.pack("<IB", request_id, subcommand)
        if subcommand & wire.INIT:
            selection = Selection(channel, reader, self._types)
            self._gets[request_id] = channel, selection
            answer = STATUS_OK + selection.type.pack() if selection.leaves else pack_error("none of these fields")
        else:
            if request_id not in self._gets:
                raise wire.WireError(f"no get has the id {request_id}")
            channel, selection = self._gets[request_id]
            leaves = channel.leaves
            answer = pack_error("no update was replayed yet") if leaves is None else STATUS_OK + selection.data(leaves)
            if subcommand & wire.DESTROY:
                del self._gets[request_id]
        self._say(wire.GET, head, answer)

    def _monitor(self, reader: Reader) -> None:
        channel = self._channel(reader)
        request_id, subcommand = reader.number("I"), reader.byte()
        if subcommand & wire.INIT:
            server_id = next(number for number, known in self._channels.items() if known is channel)
            selection = Selection(channel, reader, self._types)
            self._monitors[request_id] = channel, Monitor(server_id, request_id, selection, self._ready)
            answer = STATUS_OK + selection.type.pack() if selection.leaves else pack_error("none of these fields")
            self._say(wire.MONITOR, struct.pack("<IB", request_id, wire.INIT), answer)
        elif request_id not in self._monitors:
            return
        elif subcommand & wire.DESTROY:
            self._stop(request_id)
        elif subcommand & wire.STOP == wire.STOP:
            self._run(request_id, subcommand & wire.START == wire.START)

    def _run(self, request_id: int, running: bool) -> None:
        channel, monitor = self._monitors[request_id]
        if running and monitor not in channel.monitors:
            channel.monitors.append(monitor)
            if channel.leaves is not None:
                monitor.put(channel.leaves, (1 << len(channel.leaves)) - 1, 0)
        elif not running and monitor in channel.monitors:
            channel.monitors.remove(monitor)

    def _stop(self, request_id: int) -> None:
        channel, monitor = self._monitors.pop(request_id)
        if monitor in channel.monitors:
            channel.monitors.remove(monitor)

    def _destroy_request(self, reader: Reader) -> None:
        _, request_id = reader.number("I"), reader.number("I")
        self._gets.pop(request_id, None)
        if request_id in self._monitors:
            self._stop(request_id)

    def _channel(self, reader: Reader) -> ServedChannel:
        number = reader.number("I")
        if number not in self._channels:
            raise wire.WireError(f"no channel has the id {number}")
        return self._channels[number]
