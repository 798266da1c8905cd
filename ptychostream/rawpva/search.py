"""The search of PVA: its messages, and the addresses in EPICS's variables."""

from __future__ import annotations

import ipaddress
import struct
from collections.abc import Mapping
from typing import NamedTuple

from ptychostream.rawpva import wire
from ptychostream.rawpva.wire import Message, Reader, WireError, pack_message, pack_size, pack_text

Address = tuple[str, int]

BROADCAST_PORT, SERVER_PORT = 5076, 5075
LOCAL_GROUP = "224.0.0.128"
"""Multicast address to which a server forwards a unicast search, for the other servers of its host."""

UNICAST = 0x80
REPLY_REQUIRED = 0x01
_ANY_ADDRESS = bytes(16)
_IDS = struct.Struct("<I")
_PORT = struct.Struct("<H")


class Search(NamedTuple):
    """A search. `names` are the channels by the ids that the answer repeats."""

    sequence: int
    flags: int
    reply_to: Address
    names: dict[int, str]


def pack_search(search: Search) -> bytes:
    """Pack a search over TCP or UDP. An empty address in `reply_to` stands for the sender's."""
    host = _pack_host(search.reply_to[0])
    names = b"".join(_IDS.pack(number) + pack_text(name) for number, name in search.names.items())
    return pack_message(
        wire.SEARCH,
        struct.pack("<IB3x", search.sequence, search.flags),
        host + _PORT.pack(search.reply_to[1]),
        pack_size(1) + pack_text("tcp"),
        _PORT.pack(len(search.names)) + names,
    )


def asking(name: str, number: int, port: int) -> bytes:
    """Pack a client's search for one channel. The answer goes to `port` of the sender."""
    return pack_search(Search(1, UNICAST, ("", port), {number: name}))


def read_search(message: Message, sender: str) -> Search | None:
    """Read a search. None if it does not accept a server over TCP. Raises WireError."""
    reader = message.reader()
    sequence, flags = reader.number("I"), reader.byte()
    reader.take(3)
    host = _read_host(reader) or sender
    port = reader.number("H")
    protocols = [reader.text() for _ in range(max(0, reader.size()))]
    names: dict[int, str] = {}
    for _ in range(reader.number("H")):
        number = reader.number("I")
        names[number] = reader.text()
    return None if protocols and "tcp" not in protocols else Search(sequence, flags, (host, port), names)


def pack_answer(guid: bytes, sequence: int, port: int, numbers: list[int]) -> bytes:
    """Pack an answer: these channels are at `port` of the sender."""
    ids = _PORT.pack(len(numbers)) + b"".join(map(_IDS.pack, numbers))
    where = _IDS.pack(sequence) + _ANY_ADDRESS + _PORT.pack(port)
    return pack_message(wire.SEARCH_RESPONSE, guid, where, pack_text("tcp"), bytes((bool(numbers),)), ids, server=True)


def read_answer(message: Message, number: int, sender: str) -> Address | None:
    """The address of the server of channel `number`, or None if this is not its answer. Raises WireError."""
    if message.control or message.command != wire.SEARCH_RESPONSE:
        return None
    reader = message.reader()
    reader.take(12 + 4)
    host = _read_host(reader) or sender
    port = reader.number("H")
    if reader.text() != "tcp" or not reader.byte():
        return None
    numbers = [reader.number("I") for _ in range(reader.number("H"))]
    return (host, port) if number in numbers else None


def pack_beacon(guid: bytes, sequence: int, port: int) -> bytes:
    """Pack a server's beacon, after which waiting clients search at once."""
    head = guid + struct.pack("<BBH", 0, sequence & 0xFF, 0)
    return pack_message(wire.BEACON, head, _ANY_ADDRESS + _PORT.pack(port), pack_text("tcp"), b"\xff", server=True)


def pack_origin() -> bytes:
    """Pack the message before a search that is forwarded to the local multicast group."""
    return pack_message(wire.ORIGIN_TAG, _pack_host("127.0.0.1"), server=True)


def _pack_host(host: str) -> bytes:
    return bytes(10) + b"\xff\xff" + ipaddress.IPv4Address(host).packed if host else _ANY_ADDRESS


def _read_host(reader: Reader) -> str:
    """Read an address. It is empty if the sender's is meant."""
    data = bytes(reader.take(16))
    mapped = data[:10] == bytes(10) and data[10:12] in (b"\xff\xff", b"\0\0")
    if not mapped:
        raise WireError(f"the address {data.hex()} is not an IPv4 address")
    return "" if data[12:] == bytes(4) else str(ipaddress.IPv4Address(data[12:]))


def broadcast_port(environment: Mapping[str, str], server: bool = False) -> int:
    names = ("EPICS_PVAS_BROADCAST_PORT", "EPICS_PVA_BROADCAST_PORT")
    return _number(environment, BROADCAST_PORT, *names[0 if server else 1 :])


def server_port(environment: Mapping[str, str]) -> int:
    return _number(environment, SERVER_PORT, "EPICS_PVAS_SERVER_PORT", "EPICS_PVA_SERVER_PORT")


def interface(environment: Mapping[str, str]) -> str:
    """The address that a server listens on. It is all addresses if none or several are given."""
    named = _addresses(environment.get("EPICS_PVAS_INTF_ADDR_LIST", ""), 0)
    return named[0][0] if len(named) == 1 else "0.0.0.0"


def broadcast_addresses(environment: Mapping[str, str], server: bool = False) -> list[Address]:
    """The destinations of a client's searches, or with `server` those of a server's beacons."""
    port = broadcast_port(environment, server)
    listed, automatic = environment.get("EPICS_PVA_ADDR_LIST", ""), environment.get("EPICS_PVA_AUTO_ADDR_LIST", "YES")
    if server:
        listed = environment.get("EPICS_PVAS_BEACON_ADDR_LIST", listed)
        automatic = environment.get("EPICS_PVAS_AUTO_BEACON_ADDR_LIST", automatic)
    addresses = _addresses(listed, port)
    if automatic.strip().upper() != "NO":
        addresses += [("255.255.255.255", port), ("127.0.0.1", port)]
    return list(dict.fromkeys(addresses))


def name_servers(environment: Mapping[str, str]) -> list[Address]:
    return _addresses(environment.get("EPICS_PVA_NAME_SERVERS", ""), SERVER_PORT)


def _addresses(text: str, port: int) -> list[Address]:
    found = []
    for word in text.replace(",", " ").split():
        host, _, given = word.partition(":")
        found.append((host, int(given) if given.isdecimal() else port))
    return found


def _number(environment: Mapping[str, str], default: int, *names: str) -> int:
    for name in names:
        if environment.get(name, "").strip().isdecimal():
            return int(environment[name])
    return default
