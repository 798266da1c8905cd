"""A file of PVA updates as they were received: every field, every type, every bit.

The file is a sequence of blocks, each with its length and checksum. Blocks are only appended::

    8 bytes "PVARAW2\\n", then blocks
    block   = kind (u8), 3 zeros, length (u32), CRC-32 of the payload (u32), payload; little-endian
    kind 1  = channel: JSON with its name and the time the recording began
    kind 2  = type: a PVA field description; written whenever the channel (re)connects
    kind 3  = update: time in ns since the POSIX epoch (i64), the changed and the overrun fields
              (two bit sets over the leaves of the type), then all of the structure's values
    kind 4  = connection: 1 if its bytes are big-endian, else 0 (u8), then the type as the server described it
    kind 5  = update of that connection: time as in kind 3, then the received bytes of the monitor: change bits, the
              values that changed, overrun bits

A program that makes updates writes kinds 2 and 3. A recording writes kinds 4 and 5; "PVARAW1" files do not have these.
Types and values are serialised as in the pvAccess Protocol Specification. If a file ends within a block, for example
after a crash, it can be read up to that block.
"""

from __future__ import annotations

import json
import struct
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import NoReturn

from ptychostream.errors import ScanFileError
from ptychostream.rawpva.fields import Field, Layout, read_field
from ptychostream.rawpva.raw_output import AddedFile
from ptychostream.rawpva.raw_values import Decoder, RawUpdate, WireType, WireUpdate, WireUpdates
from ptychostream.rawpva.wire import Reader, WireError, pack_bits
from ptychostream.storage.atomic import cannot_be_written

MAGIC = b"PVARAW2\n"
_EARLIER = b"PVARAW1\n"
_BLOCK = struct.Struct("<B3xII")
_TIME = struct.Struct("<q")
_CHANNEL, _TYPE, _UPDATE, _WIRE_TYPE, _WIRE_UPDATE = range(1, 6)


class RawWriter:
    """Appends updates to a new or an existing file.

    Parameters
    ----------
    path
        Path of the file.
    channel
        Name of the channel. An existing file must be of the same channel.
    sync_s
        Time between two fsync calls, seconds. If this process crashes, nothing is lost. If the machine crashes, the
        updates since the last fsync are lost.
    began_ns
        Start of the recording, ns since the POSIX epoch. None: now.

    Raises
    ------
    ScanFileError
        The file is of another channel, is not a file of updates, or cannot be written.
    """

    def __init__(self, path: str | Path, channel: str, *, sync_s: float = 1.0, began_ns: int | None = None) -> None:
        self._path = Path(path)
        self._type: Field | None = None
        self._wire_type: WireType | None = None
        try:
            end = self._end(channel)
            self._file = AddedFile(self._path, end, sync_s)
            if not end:
                began_ns = time.time_ns() if began_ns is None else began_ns
                named = json.dumps({"channel": channel, "began_ns": began_ns}).encode()
                self._file.add([MAGIC, *_block(_CHANNEL, named)])
        except OSError as error:
            raise cannot_be_written(path, error) from error

    def _end(self, channel: str) -> int:
        """The end of the last complete update, because a crash may have cut one short."""
        if not self._path.exists() or self._path.stat().st_size == 0:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            return 0
        with RawFile(self._path) as before:
            if before.channel != channel:
                what, remedy = f"has updates of {before.channel}, not of {channel}", "name another file"
            elif before.version != MAGIC:
                what, remedy = "was written by an earlier version", "name a new file"
            else:
                return before.size
        raise ScanFileError(what, where=str(self._path), remedy=remedy)

    def write(self, update: RawUpdate) -> None:
        """Append an update that a program made. Raises ScanFileError if the disk is full."""
        parts: list[bytes | memoryview] = []
        if update.type is not self._type:
            parts += _block(_TYPE, update.type.pack())
            self._type = update.type
        bits = pack_bits(update.changed) + pack_bits(update.overrun)
        self._add([*parts, *_block(_UPDATE, _TIME.pack(update.time_ns), bits, update.value)])

    def write_as_came(self, came: WireUpdates) -> None:
        """Append updates with their bytes on the wire, in one write. Raises ScanFileError if the disk is full."""
        parts: list[bytes | memoryview] = []
        if came.type is not self._wire_type:
            parts += _block(_WIRE_TYPE, bytes((came.type.big_endian,)), came.type.description)
            self._wire_type = came.type
        for update in came.updates:
            parts += _block(_WIRE_UPDATE, _TIME.pack(update.time_ns), update.body)
        self._add(parts)

    def _add(self, parts: list[bytes | memoryview]) -> None:
        try:
            self._file.add(parts)
        except OSError as error:
            raise cannot_be_written(self._path, error) from error

    def close(self) -> None:
        """Write everything to the disk and close the file. Raises ScanFileError."""
        try:
            self._file.close()
        except OSError as error:
            raise cannot_be_written(self._path, error) from error

    def __enter__(self) -> RawWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def _block(kind: int, *parts: bytes | memoryview) -> tuple[bytes | memoryview, ...]:
    checksum = length = 0
    for part in parts:
        checksum = zlib.crc32(part, checksum)
        length += len(part)
    return _BLOCK.pack(kind, length, checksum), *parts


class RawFile:
    """Reads a file of `RawWriter`, one update at a time.

    Attributes
    ----------
    version
        First bytes of the file.
    channel
        Name of the channel.
    updates
        Number of complete updates.
    size
        Bytes up to the end of the last complete block.
    torn
        Bytes after that, of an update that a crash cut short.

    Raises
    ------
    ScanFileError
        It is not a file of updates, has no update, or its blocks are invalid.
    """

    def __init__(self, path: str | Path) -> None:
        self._path = Path(path)
        try:
            self._file = self._path.open("rb")
            total = self._path.stat().st_size
        except OSError as error:
            raise ScanFileError(
                error.strerror or str(error), where=str(path), remedy="give a file that `record --raw` wrote"
            ) from error
        try:
            self._scan(total)
        except BaseException:
            self._file.close()
            raise

    def _scan(self, total: int) -> None:
        self.version = self._file.read(len(MAGIC))
        if self.version not in (MAGIC, _EARLIER):
            self._refuse("not a recording of PVA updates", "give a file that `record --raw` wrote")
        kinds: set[int] = set()
        self.updates, self.size = 0, len(MAGIC)
        while True:
            head = self._file.read(_BLOCK.size)
            if len(head) < _BLOCK.size:
                break
            kind, length, _ = _BLOCK.unpack(head)
            if not _CHANNEL <= kind <= _WIRE_UPDATE:
                self._refuse(f"a block of kind {kind} at byte {self.size}", "it is damaged: record again")
            end = self.size + _BLOCK.size + length
            if end > total:
                break
            if not kinds and kind != _CHANNEL:
                self._refuse("does not begin with its channel's name", "it is damaged: record again")
            kinds.add(kind)
            self.updates += kind in (_UPDATE, _WIRE_UPDATE)
            self.size = end
            self._file.seek(end)
        self.torn = total - self.size
        if _CHANNEL not in kinds:
            self._refuse(f"truncated: {total} bytes, ends before its channel's name", "record again")
        self._file.seek(len(MAGIC))
        self.channel = self._channel()

    def _channel(self) -> str:
        _, payload = self._next()
        try:
            return str(json.loads(bytes(payload))["channel"])
        except (ValueError, KeyError, TypeError) as error:
            self._refuse(f"its first block names no channel: {error}", "it is damaged: record again")

    def _next(self) -> tuple[int, memoryview]:
        at = self._file.tell()
        kind, length, checksum = _BLOCK.unpack(self._file.read(_BLOCK.size))
        payload = self._file.read(length)
        if zlib.crc32(payload) != checksum:
            self._refuse(f"the block at byte {at} is damaged: its checksum is wrong", "it is damaged: record again")
        return kind, memoryview(payload)

    def __iter__(self) -> Iterator[RawUpdate]:
        """The updates in their order. Raises ScanFileError at a damaged one."""
        self._file.seek(len(MAGIC))
        layout: Layout | None = None
        decoder: Decoder | None = None
        while self._file.tell() < self.size:
            at = self._file.tell()
            kind, payload = self._next()
            try:
                if kind == _TYPE:
                    layout = Layout(_whole(payload))
                elif kind == _UPDATE:
                    if layout is None:
                        raise WireError("an update before its type")
                    yield _update(payload, layout)
                elif kind == _WIRE_TYPE:
                    decoder = Decoder(_wire_type(payload))
                elif kind == _WIRE_UPDATE:
                    if decoder is None:
                        raise WireError("an update before its connection")
                    yield decoder.update(_wire_update(payload))
            except (WireError, struct.error) as error:
                self._refuse(f"the block at byte {at}: {error}", "it is damaged: record again")

    def _refuse(self, what: str, remedy: str) -> NoReturn:
        raise ScanFileError(what, where=str(self._path), remedy=remedy)

    def close(self) -> None:
        self._file.close()

    def __enter__(self) -> RawFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def _whole(payload: memoryview) -> Field:
    reader = Reader(payload)
    field = read_field(reader, {})
    if field is None or reader.left:
        raise WireError("a type with bytes left over" if field else "no type")
    return field


def _wire_type(payload: memoryview) -> WireType:
    reader = Reader(payload)
    return WireType(bool(reader.byte()), bytes(reader.take(reader.left)))


def _wire_update(payload: memoryview) -> WireUpdate:
    reader = Reader(payload)
    (time_ns,) = _TIME.unpack(reader.take(_TIME.size))
    return WireUpdate(time_ns, reader.take(reader.left))


def _update(payload: memoryview, layout: Layout) -> RawUpdate:
    reader = Reader(payload)
    (time_ns,) = _TIME.unpack(reader.take(_TIME.size))
    changed, overrun = reader.bits(), reader.bits()
    value = bytes(reader.take(reader.left))
    layout.split(value)  # the checksum finds damage; this finds errors of other writers
    return RawUpdate(time_ns, layout.structure, changed, overrun, value)
