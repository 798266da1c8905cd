"""An HDF5 file that is written in commits: if its writer is killed, a reader finds the last commit.

HDF5 appends data, and it rewrites some parts in place: the superblock, the dimensions, the chunk index. A process that
dies between two of these writes leaves a file that cannot be opened. Here, data behind the last commit is written at
once, because no committed byte refers to it. A change of a committed byte is kept in memory until `commit`. A commit
writes these changes to a journal beside the file, applies them, and removes the journal. Until the journal is complete
the file is the old one; after that `replay_journal` can make the new one from it.

This protects against the death of the process. If the machine dies, only a closed file is safe, because a commit does
not wait for the disk.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import struct
import zlib
from pathlib import Path
from typing import Any

from ptychostream.storage.hdf5_output import GuardedFile

if os.name == "posix":
    import fcntl

_HEADER = struct.Struct("<8sQI")  # magic, number of bytes that follow, their CRC-32
_CHANGE = struct.Struct("<QQ")  # place in the file, number of bytes that follow
_MAGIC = b"PTYJRNL1"


def journal_of(path: str | os.PathLike[str]) -> Path:
    """The path of the journal of the file `path`."""
    return Path(f"{os.fspath(path)}.journal")


class CommittedFile(GuardedFile):
    """A file for `h5py.File` whose committed part changes on the disk only by `commit`.

    The changes of committed bytes since the last commit are in memory.

    Raises
    ------
    OSError
        The file cannot be created, or another process has locked it. `commit` raises it for every failed write since
        the last commit; that commit then stays.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._journal = journal_of(path)
        self._held: list[tuple[int, bytes]] = []
        self._end = 0  # length in bytes after the last commit
        self._cut: int | None = None
        super().__init__(path)
        self._journal.unlink(missing_ok=True)

    def write(self, data: Any) -> int:
        view = memoryview(data).cast("B")
        place, size = self.tell(), len(view)
        committed = max(0, min(size, self._end - place))
        if committed:
            self._held.append((place, bytes(view[:committed])))
            io.FileIO.seek(self, place + committed)
        if committed < size:
            super().write(view[committed:])
        return size

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        place = self.tell()
        got = super().readinto(view) or 0
        for start, data in self._held:
            first, last = max(start, place), min(start + len(data), place + got)
            if first < last:
                view[first - place : last - place] = data[first - start : last - start]
        return got

    def truncate(self, size: int | None = None) -> int:
        if size is not None and size < self._end:
            self._cut = size
            return size
        self._cut = None
        return super().truncate(size)

    def commit(self) -> None:
        """Commit all data that HDF5 has written, by `h5py.File.flush` or `close`. Raises OSError."""
        self.check()
        try:
            if self._held:
                self._write_journal()
                self._end = self._size()
                _apply(self.fileno(), self._held)
                self._journal.unlink()
            if self._cut is not None:
                io.FileIO.truncate(self, self._cut)
        except OSError as error:
            self.error = error
            raise
        self._held.clear()
        self._cut = None
        self._end = self._size()

    def abandon(self) -> None:
        """Keep the last commit. HDF5 may still close its file; the data that it writes is dropped."""
        if self.error is None:
            self.error = OSError(errno.ECANCELED, "abandoned")
        with contextlib.suppress(OSError):
            io.FileIO.truncate(self, self._end)  # remove uncommitted data, because the disk may be full

    def _write_journal(self) -> None:
        try:
            self._journal.write_bytes(_pack(self._held))
        except OSError:
            self._journal.unlink(missing_ok=True)
            raise

    def _size(self) -> int:
        return os.fstat(self.fileno()).st_size


def replay_journal(path: str | os.PathLike[str]) -> bool:
    """Finish a commit during which the writer of `path` died. Returns whether there was one.

    An incomplete journal is removed, because none of its changes was applied.

    Raises
    ------
    BlockingIOError
        The writer is still running.
    OSError
        The file cannot be changed.
    """
    descriptor = os.open(path, os.O_RDWR)
    try:
        if os.name == "posix":
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        journal = journal_of(path)
        try:
            changes = _unpack(journal.read_bytes())
        except FileNotFoundError:
            return False
        if changes:
            _apply(descriptor, changes)
            os.fsync(descriptor)
        journal.unlink()
        return bool(changes)
    finally:
        os.close(descriptor)


def _pack(changes: list[tuple[int, bytes]]) -> bytes:
    body = b"".join(part for place, data in changes for part in (_CHANGE.pack(place, len(data)), data))
    return _HEADER.pack(_MAGIC, len(body), zlib.crc32(body)) + body


def _unpack(packed: bytes) -> list[tuple[int, bytes]]:
    """The changes in a journal. None if the journal is incomplete."""
    if len(packed) < _HEADER.size:
        return []
    magic, size, checksum = _HEADER.unpack_from(packed)
    body = packed[_HEADER.size :]
    if (magic, size, checksum) != (_MAGIC, len(body), zlib.crc32(body)):
        return []
    changes, at = [], 0
    while at < len(body):
        place, length = _CHANGE.unpack_from(body, at)
        at += _CHANGE.size
        changes.append((place, body[at : at + length]))
        at += length
    return changes


def _apply(descriptor: int, changes: list[tuple[int, bytes]]) -> None:
    for place, data in changes:
        done = 0
        while done < len(data):
            done += os.pwrite(descriptor, data[done:], place + done)
