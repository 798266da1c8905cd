"""Find damaged heaps in an HDF5 file before libhdf5 reads them.

Texts of variable length, references and the maps of virtual datasets are stored in global heap collections: objects
one after the other, each with its size. libhdf5 (2.0.0) steps from object to object by these sizes. It never ends if
free space has size 0, or if a size is so large that it wraps around. It holds the interpreter's lock meanwhile, so no
other thread can stop it. Only libhdf5 knows where the collections of a file are. Therefore everything that can refer to
a collection is read once through a file object that checks the bytes before libhdf5 gets them.
"""

from __future__ import annotations

import io
import os
import struct
from contextlib import suppress
from pathlib import Path
from typing import Any

import h5py

from ptychostream.errors import ScanFileError
from ptychostream.storage.hdf5_extent import MAX_PART_BYTES, object_blocks

_HEAD = struct.Struct("<4sB3x")
_SIGNATURE = _HEAD.pack(b"GCOL", 1)
_OBJECT = struct.Struct("<H6x")
_MIN_BYTES = 4096
_MAX_FILES = 1024
MAX_OBJECTS = 10_000
"""The largest number of groups and arrays of a file: each is looked at, which takes about a millisecond."""
_UNREADABLE = (OSError, RuntimeError, KeyError, ValueError, TypeError, OverflowError, ScanFileError)
"""The errors of h5py for other damage. The code that reads the damaged part reports it."""


def open_checked(path: str | os.PathLike[str], *, swmr: bool = False) -> h5py.File:
    """Open a file for reading after a check of its heaps and those of the files that it links to.

    A file that is being written in SWMR mode is opened without a check: in that mode its writer may not add to heaps.

    Raises
    ------
    ScanFileError
        A heap is damaged.
    OSError, RuntimeError
        Errors of h5py.
    """
    file = h5py.File(Path(path), "r", swmr=swmr)
    try:
        check_heaps(Path(path))
    except BaseException:
        file.close()
        raise
    return file


def check_heaps(path: Path) -> None:
    """Raise ScanFileError if a global heap of `path`, or of a file that it links to, is damaged."""
    waiting, seen = [path], {path.absolute()}
    while waiting:
        current = waiting.pop()
        for name in sorted(_HeapReader(current).linked):
            other = (current.parent / name).absolute()
            if other not in seen and len(seen) < _MAX_FILES and other.is_file():
                seen.add(other)
                waiting.append(other)


def heap_fault(collection: bytes, length_bytes: int = 8) -> str:
    """Describe the damage of a complete global heap collection. The text is empty if there is none.

    Parameters
    ----------
    length_bytes
        Size of a length field in this file, as its superblock says.
    """
    size = len(collection)
    at, head = _aligned(_HEAD.size + length_bytes), _aligned(_OBJECT.size + length_bytes)
    while at + head <= size:
        (index,) = _OBJECT.unpack_from(collection, at)
        length = int.from_bytes(collection[at + _OBJECT.size : at + _OBJECT.size + length_bytes], "little")
        step = head + _aligned(length) if index else length  # the size of free space includes its header
        if not head <= step <= size - at:
            what = f"object {index}" if index else "free space"
            return f"{what} at its byte {at} announces {length} bytes, but {size - at} are left"
        at += step
    return ""


def _aligned(size: int) -> int:
    return -(-size // 8) * 8


class _WatchedFile(io.FileIO):
    """A file for `h5py.File` that refuses to read a damaged heap.

    Attributes
    ----------
    fault
        Damage of the first damaged heap. Empty if there is none.
    length_bytes
        See `heap_fault`.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path, "rb")
        self.fault = ""
        self.length_bytes = 8
        self._sound: set[int] = set()

    def readinto(self, buffer: Any) -> int:
        """Fill all of `buffer`. Raises OSError if the file is too short or a heap is damaged."""
        at, view, got = self.tell(), memoryview(buffer).cast("B"), 0
        while got < len(view):
            count = super().readinto(view[got:])
            if not count:
                raise OSError(f"the file ends at byte {at + got}")
            got += count
        if view[: len(_SIGNATURE)] == _SIGNATURE and at not in self._sound:
            fault = self._check(at)
            if fault:
                self.fault = f"its global heap at byte {at} is damaged: {fault}"
                raise OSError(self.fault)
            self._sound.add(at)
        return got

    def _check(self, at: int) -> str:
        head = os.pread(self.fileno(), _HEAD.size + self.length_bytes, at)
        size, left = int.from_bytes(head[_HEAD.size :], "little"), os.fstat(self.fileno()).st_size - at
        if not _MIN_BYTES <= size <= min(left, MAX_PART_BYTES):
            return f"it announces {size} bytes, but {left} are left in the file"
        return heap_fault(os.pread(self.fileno(), size, at), self.length_bytes)


class _HeapReader:
    """Reads everything in one file that can be in a heap.

    Attributes
    ----------
    linked
        Names of the files that it links to.

    Raises
    ------
    ScanFileError
        A heap is damaged. Other damage is not reported.
    """

    def __init__(self, path: Path) -> None:
        self.linked: set[str] = set()
        self._excess = ""
        self._waiting: list[Any] = []
        self._seen: set[int] = set()
        try:
            with _WatchedFile(path) as watched:
                self._file(watched)
        except OSError:
            return
        if watched.fault:
            remedy = "copy it again, or record the scan again"
            raise ScanFileError(watched.fault, where=str(path), remedy=remedy)
        if self._excess:
            remedy = "repack the file with few groups and arrays"
            raise ScanFileError(self._excess, where=str(path), remedy=remedy)

    def _file(self, watched: _WatchedFile) -> None:
        with suppress(*_UNREADABLE), h5py.File(watched, "r") as file:
            watched.length_bytes = file.id.get_create_plist().get_sizes()[1]
            self._waiting.append(file["/"])
            while self._waiting and not watched.fault and not self._excess:
                part = self._waiting.pop()
                for read in (self._attributes, self._members, self._values):
                    with suppress(*_UNREADABLE):
                        read(part)

    def _attributes(self, part: Any) -> None:
        for name in part.attrs:
            if part.attrs.get_id(name).dtype.hasobject:
                part.attrs[name]

    def _members(self, part: Any) -> None:
        if not isinstance(part, h5py.Group):
            return
        if len(self._seen) + len(part) > MAX_OBJECTS:
            self._excess = f"with the {len(part):,} members of {part.name} it has more than {MAX_OBJECTS:,} objects"
            return
        for name in part.id:  # as bytes, because a name may be no text
            with suppress(*_UNREADABLE):
                kind = part.id.links.get_info(name).type
                if kind == h5py.h5l.TYPE_HARD:
                    self._add(part[name])
                elif kind == h5py.h5l.TYPE_EXTERNAL:
                    self.linked.add(part.get(name, getlink=True).filename)

    def _add(self, part: Any) -> None:
        """Read a part. Opening a virtual dataset reads its map."""
        address = h5py.h5o.get_info(part.id).addr
        if address not in self._seen:
            self._seen.add(address)
            self._waiting.append(part)

    def _values(self, part: Any) -> None:
        if not isinstance(part, h5py.Dataset) or part.shape is None:
            return
        if part.is_virtual:
            self.linked.update(source.file_name for source in part.virtual_sources())
        elif part.dtype.hasobject and part.size:
            part[(0,) * part.ndim]  # of a dataset that is too large only this is read
            for _ in object_blocks(part, ""):
                pass
