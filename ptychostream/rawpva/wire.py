"""Read and write the primitives and messages of the PVA protocol.

Sizes, strings, bit sets and the message header are those of the pvAccess Protocol Specification. A reader accepts both
byte orders. All output is little-endian.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple

MAX_MESSAGE_BYTES = 1 << 30
"""A larger message is refused."""

HEADER = struct.Struct("<BBBBI")
_MAGIC = 0xCA
_VERSION = 2
_CONTROL, _FROM_SERVER, _BIG_ENDIAN = 0x01, 0x40, 0x80
_FIRST, _LAST = 0x10, 0x20  # flags of the first and the last segment; middle ones have both

BEACON = 0
CONNECTION_VALIDATION = 1
ECHO = 2
SEARCH = 3
SEARCH_RESPONSE = 4
CREATE_CHANNEL = 7
DESTROY_CHANNEL = 8
CONNECTION_VALIDATED = 9
GET = 10
MONITOR = 13
DESTROY_REQUEST = 15
GET_FIELD = 17
CANCEL_REQUEST = 21
ORIGIN_TAG = 22
SET_BYTE_ORDER = 2  # number of a control message

INIT, DESTROY, START, STOP, PIPELINE = 0x08, 0x10, 0x44, 0x04, 0x80


_LITTLE, _BIG = ({code: struct.Struct(order + code) for code in "hHiIqQ"} for order in "<>")


class WireError(ValueError):
    """The bytes do not follow the protocol."""


class Reader:
    """Reads values one after the other. Raises WireError if the bytes end too early.

    Parameters
    ----------
    data
        The bytes to read.
    big_endian
        Byte order of the bytes.
    """

    __slots__ = ("_unpack", "at", "big_endian", "data")

    def __init__(self, data: bytes | memoryview, big_endian: bool = False) -> None:
        self.data = memoryview(data)
        self.at = 0
        self.big_endian = big_endian
        self._unpack = _BIG if big_endian else _LITTLE

    @property
    def left(self) -> int:
        return len(self.data) - self.at

    def take(self, count: int) -> memoryview:
        if not 0 <= count <= self.left:
            raise WireError(f"{count} bytes needed at byte {self.at}, {self.left} there")
        self.at += count
        return self.data[self.at - count : self.at]

    def number(self, code: str) -> int:
        """Read an integer with its `struct` code: h H i I q Q."""
        unpacker = self._unpack[code]
        value: int = unpacker.unpack(self.take(unpacker.size))[0]
        return value

    def byte(self) -> int:
        return self.take(1)[0]

    def size(self) -> int:
        """Read a size. -1 for null."""
        first = self.byte()
        if first < 254:
            return first
        if first == 255:
            return -1
        return self.number("i")

    def text(self) -> str:
        return bytes(self.take(max(0, self.size()))).decode(errors="surrogateescape")

    def bits(self) -> int:
        """Read a bit set as an integer."""
        data = bytes(self.take(max(0, self.size())))
        if self.big_endian:  # complete words of eight bytes are swapped, the rest is not
            words = len(data) // 8 * 8
            data = b"".join(data[at : at + 8][::-1] for at in range(0, words, 8)) + data[words:]
        return int.from_bytes(data, "little")

    def status(self) -> str:
        """Read a status. Empty for success, else the message of the error."""
        kind = self.byte()
        if kind == 0xFF:
            return ""
        message, _ = self.text(), self.text()
        return "" if kind in (0, 1) else message or f"status {kind}"


def pack_size(size: int) -> bytes:
    if size < 0:
        return b"\xff"
    return bytes((size,)) if size < 254 else b"\xfe" + struct.pack("<i", size)


def pack_text(text: str) -> bytes:
    data = text.encode(errors="surrogateescape")
    return pack_size(len(data)) + data


def pack_bits(bits: int) -> bytes:
    length = (bits.bit_length() + 7) // 8
    return pack_size(length) + bits.to_bytes(length, "little")


STATUS_OK = b"\xff"


def pack_error(message: str) -> bytes:
    return b"\x02" + pack_text(message) + pack_text("")


def pack_message(command: int, *parts: bytes, server: bool = False, control: bool = False, value: int = 0) -> bytes:
    """Pack a message. A control message has `value` in place of the length, and no payload."""
    flags = (_CONTROL if control else 0) | (_FROM_SERVER if server else 0)
    size = value if control else sum(map(len, parts))
    return b"".join((HEADER.pack(_MAGIC, _VERSION, flags, command, size), *parts))


class Message(NamedTuple):
    command: int
    control: bool
    payload: bytes | memoryview
    big_endian: bool

    def reader(self) -> Reader:
        return Reader(self.payload, self.big_endian)


class MessageStream:
    """Splits a stream of bytes into messages, and joins segments. Unsegmented messages are not copied."""

    def __init__(self) -> None:
        self._begun = bytearray()
        self._needed = 0  # bytes that the next message needs
        self._segments = bytearray()

    def feed(self, data: bytes) -> Iterator[Message]:
        """Yield the complete messages; take all of them. Raises WireError if the bytes are not PVA."""
        came: bytes | bytearray = data
        if self._begun:
            self._begun += data
            if len(self._begun) < self._needed:
                return
            came, self._begun = self._begun, bytearray()
        view, at = memoryview(came), 0
        while True:
            self._needed = HEADER.size
            if len(view) - at < self._needed:
                break
            magic, _, flags, command, size = HEADER.unpack_from(view, at)
            big_endian = bool(flags & _BIG_ENDIAN)
            if big_endian:
                (size,) = struct.unpack_from(">I", view, at + 4)
            if magic != _MAGIC:
                raise WireError(f"a message begins with {magic:#04x}, not with {_MAGIC:#04x}")
            if flags & _CONTROL:
                at += HEADER.size
                yield Message(command, True, b"", big_endian)
                continue
            if size + len(self._segments) > MAX_MESSAGE_BYTES:
                raise WireError(f"a message of {size} bytes, more than {MAX_MESSAGE_BYTES}")
            self._needed += size
            if len(view) - at < self._needed:
                break
            payload: bytes | memoryview = view[at + HEADER.size : at + self._needed]
            at += self._needed
            segment = flags & (_FIRST | _LAST)
            if segment:
                self._segments += payload
                if segment != _LAST:
                    continue
                payload, self._segments = bytes(self._segments), bytearray()
            yield Message(command, False, payload, big_endian)
        self._begun += view[at:]
