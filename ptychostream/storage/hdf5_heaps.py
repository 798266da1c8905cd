"""Damaged heaps of HDF5 files, found before libhdf5 steps through them.

Texts of variable length, references and the maps of virtual datasets lie in global heap collections, a row of objects
that each say how long they are. libhdf5 (2.0.0) goes from one to the next by these sizes, and for ever where one leads
nowhere: free space of size 0, or a size so large that it wraps around. It holds the interpreter's lock meanwhile, so
no other thread can end it. Nothing but libhdf5 knows where a file has its collections; so everything that can lead to
one is read once through a file that looks at what libhdf5 is about to get.
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
_UNREADABLE = (OSError, RuntimeError, KeyError, ValueError, TypeError, OverflowError, ScanFileError)
"""What h5py says of damage that is not for this module: whoever reads that part will say so."""


def open_checked(path: str | os.PathLike[str], *, swmr: bool = False) -> h5py.File:
    """Open for reading a file that libhdf5 comes back from, and those that it links to.

    A file that is being written by SWMR cannot be looked at and is opened as it is: its writer may not add to heaps.

    Raises
    ------
    ScanFileError
        A heap is damaged.
    OSError, RuntimeError
        As h5py raises them.
    """
    file = h5py.File(Path(path), "r", swmr=swmr)
    try:
        check_heaps(Path(path))
    except BaseException:
        file.close()
        raise
    return file


def check_heaps(path: Path) -> None:
    """Raises ScanFileError where a global heap of `path`, or of a file that it links to, is damaged."""
    waiting, seen = [path], {path.absolute()}
    while waiting:
        current = waiting.pop()
        for name in sorted(_Look(current).linked):
            other = (current.parent / name).absolute()
            if other not in seen and len(seen) < _MAX_FILES and other.is_file():
                seen.add(other)
                waiting.append(other)


def heap_fault(collection: bytes, length_bytes: int = 8) -> str:
    """What is wrong with a whole global heap collection; empty where nothing is.

    Parameters
    ----------
    length_bytes
        Of a length in this file, by its superblock.
    """
    size = len(collection)
    at, head = _aligned(_HEAD.size + length_bytes), _aligned(_OBJECT.size + length_bytes)
    while at + head <= size:
        (index,) = _OBJECT.unpack_from(collection, at)
        length = int.from_bytes(collection[at + _OBJECT.size : at + _OBJECT.size + length_bytes], "little")
        step = head + _aligned(length) if index else length  # free space counts its own head
        if not head <= step <= size - at:
            what = f"object {index}" if index else "free space"
            return f"{what} at byte {at} of it says {length} bytes, where {size - at} are left"
        at += step
    return ""


def _aligned(size: int) -> int:
    return -(-size // 8) * 8


class _WatchedFile(io.FileIO):
    """A file for `h5py.File` that refuses to hand out a damaged heap.

    Attributes
    ----------
    fault
        What is wrong with the first that was; empty while none was.
    length_bytes
        See `heap_fault`.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path, "rb")
        self.fault = ""
        self.length_bytes = 8
        self._sound: set[int] = set()

    def readinto(self, buffer: Any) -> int:
        """Fill all of `buffer`. Raises OSError where the file ends before, or a heap is damaged."""
        at, view, got = self.tell(), memoryview(buffer).cast("B"), 0
        while got < len(view):
            count = super().readinto(view[got:])
            if not count:
                raise OSError(f"the file ends at byte {at + got}")
            got += count
        if view[: len(_SIGNATURE)] == _SIGNATURE and at not in self._sound:
            fault = self._look(at)
            if fault:
                self.fault = f"its global heap at byte {at} is damaged: {fault}"
                raise OSError(self.fault)
            self._sound.add(at)
        return got

    def _look(self, at: int) -> str:
        head = os.pread(self.fileno(), _HEAD.size + self.length_bytes, at)
        size, left = int.from_bytes(head[_HEAD.size :], "little"), os.fstat(self.fileno()).st_size - at
        if not _MIN_BYTES <= size <= min(left, MAX_PART_BYTES):
            return f"it says {size} bytes, where the file has {left} from there"
        return heap_fault(os.pread(self.fileno(), size, at), self.length_bytes)


class _Look:
    """One file, of which everything is read that a heap can hold.

    Attributes
    ----------
    linked
        The names of the files that it links to.

    Raises
    ------
    ScanFileError
        A heap is damaged. Other damage is for those who read that part.
    """

    def __init__(self, path: Path) -> None:
        self.linked: set[str] = set()
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

    def _file(self, watched: _WatchedFile) -> None:
        with suppress(*_UNREADABLE), h5py.File(watched, "r") as file:
            watched.length_bytes = file.id.get_create_plist().get_sizes()[1]
            self._waiting.append(file["/"])
            while self._waiting and not watched.fault:
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
        for name in part.id:  # as bytes: not every name is text
            with suppress(*_UNREADABLE):
                kind = part.id.links.get_info(name).type
                if kind == h5py.h5l.TYPE_HARD:
                    self._add(part[name])
                elif kind == h5py.h5l.TYPE_EXTERNAL:
                    self.linked.add(part.get(name, getlink=True).filename)

    def _add(self, part: Any) -> None:
        """Opening a virtual dataset reads its map."""
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
            part[(0,) * part.ndim]  # all that is read of one too large
            for _ in object_blocks(part, ""):
                pass
