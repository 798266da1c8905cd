"""An HDF5 file that grows in commits: whatever kills its writer, the last commit is what a reader finds.

HDF5 appends, and it rewrites in place: the superblock, the dimensions, the chunk index. A process that dies between
two of those leaves a file that nobody opens. Here what is appended behind the last commit goes to the disk at once,
where no committed byte refers to it, and what would change a committed byte is held back until `commit`. A commit
writes those changes to a journal beside the file, applies them and removes the journal: before the journal is whole
the file is the old one, afterwards `replay_journal` makes it the new one.

This holds against the death of the process. Against that of the machine only a file that was closed is safe: a commit
does not wait for the disk.
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

_HEADER = struct.Struct("<8sQI")  # magic, bytes that follow, their CRC-32
_CHANGE = struct.Struct("<QQ")  # place in the file, bytes that follow
_MAGIC = b"PTYJRNL1"


def journal_of(path: str | os.PathLike[str]) -> Path:
    """Where the journal of the file `path` lies."""
    return Path(f"{os.fspath(path)}.journal")


class CommittedFile(GuardedFile):
    """A file for `h5py.File` that on the disk changes by `commit` alone. Memory: what HDF5 rewrites between commits.

    Raises
    ------
    OSError
        When it cannot be made, or another process holds it; from `commit` when the disk did not take something, now
        or since the last commit. The last commit then stays.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._journal = journal_of(path)
        self._held: list[tuple[int, bytes]] = []
        self._end = 0  # bytes of the last commit
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
        """What HDF5 has written so far, by `h5py.File.flush` or `close`, is the file from now on. Raises OSError."""
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
        """The last commit stays; HDF5 may close its file, what it writes in doing so is dropped."""
        if self.error is None:
            self.error = OSError(errno.ECANCELED, "abandoned")
        with contextlib.suppress(OSError):
            io.FileIO.truncate(self, self._end)  # what no commit refers to: the disk may be full

    def _write_journal(self) -> None:
        try:
            self._journal.write_bytes(_pack(self._held))
        except OSError:
            self._journal.unlink(missing_ok=True)
            raise

    def _size(self) -> int:
        return os.fstat(self.fileno()).st_size


def replay_journal(path: str | os.PathLike[str]) -> bool:
    """Finish the commit in which the writer of `path` died; True where there was one.

    A journal that is not whole is removed: its commit had not begun.

    Raises
    ------
    BlockingIOError
        The writer lives.
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
    """The changes of a journal; none where it is not whole."""
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
