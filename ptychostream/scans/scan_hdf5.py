"""Open HDF5 files with errors that name the cause, and read values that all layouts have."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import h5py
import hdf5plugin  # registers the filters LZ4, bitshuffle, Blosc and others with HDF5
import numpy as np
from numpy.typing import NDArray

from ptychostream.errors import FileBusyError, FileCutError, ScanFileError
from ptychostream.storage.hdf5_extent import MAX_CHUNKS, check_extent, object_blocks
from ptychostream.storage.hdf5_heaps import open_checked
from ptychostream.storage.hdf5_virtual import check_sources

_MAX_FRAME_CHUNKS = 1 << 14

# Part of HDF5's message, what it means to the user, the remedy, the error.
_CAUSES: tuple[tuple[str, str, str, type[ScanFileError]], ...] = (
    ("truncated file", "the file is cut short", "copy it again; the copy or the writer was interrupted", FileCutError),
    ("already open for write", "the file is still open for writing", "wait until the writer has closed it; after a "
     "crash of the writer `h5clear -s` frees it", FileBusyError),
    ("unable to lock file", "another process holds the file open for writing", "wait until it has closed it",
     FileBusyError),
    ("file signature not found", "the file is not HDF5", "give an HDF5 or npz scan file", ScanFileError),
    ("Permission denied", "no permission to read it", "change the file's permissions", ScanFileError),
)  # fmt: skip


def open_hdf5(path: str | os.PathLike[str], *, swmr: bool = False) -> h5py.File:
    """Open for reading. Raises ScanFileError: cut short, locked, still being written, not HDF5, or damaged heaps."""
    try:
        return open_checked(path, swmr=swmr)
    except (OSError, RuntimeError) as error:
        message = str(error)
        for fragment, what, remedy, kind in _CAUSES:
            if fragment in message:
                raise kind(what, where=str(path), remedy=remedy) from error
        raise ScanFileError(f"HDF5 cannot open it: {message}", where=str(path), remedy="copy it again") from error


def checked_dataset(dataset: h5py.Dataset, where: str) -> h5py.Dataset:
    """Check that this machine has the compression filters of `dataset`, that a frame is not too large, and that the
    files of a virtual one are there.

    Raises ScanFileError.
    """
    if dataset.shape is None:
        raise ScanFileError(f"{dataset.name} is empty", where=where, remedy="record the scan again")
    _check_filters(dataset, where)
    check_extent(dataset, dataset.shape[1:], _MAX_FRAME_CHUNKS, where)
    check_sources(dataset, where)
    return dataset


def _check_filters(dataset: h5py.Dataset, where: str) -> None:
    properties = dataset.id.get_create_plist()
    for index in range(properties.get_nfilters()):
        code, _, _, name = properties.get_filter(index)
        if not h5py.h5z.filter_avail(code):
            label = name.decode(errors="replace") or "unnamed"
            raise ScanFileError(
                f"{dataset.name} is compressed with HDF5 filter {code} ({label}), which hdf5plugin "
                f"{hdf5plugin.version} does not have",
                where=where,
                remedy="repack the file with another filter, for instance `h5repack -f GZIP=1`",
            )


def whole(part: Any, where: str, kinds: str = "") -> NDArray[Any]:
    """Read all of a part. `kinds` are the allowed dtype kinds; empty allows all.

    Raises ScanFileError: the part is no array, of another kind, or larger than any real one.
    """
    if not isinstance(part, h5py.Dataset) or part.shape is None:
        name = getattr(part, "name", part)
        raise ScanFileError(
            f"{name} is not an array", where=where, remedy="the file is damaged or of another layout; copy it again"
        )
    if kinds and part.dtype.kind not in kinds:
        what = f"{part.name} is of type {part.dtype}"
        raise ScanFileError(what, where=where, remedy="store numbers there; the file is damaged or of another layout")
    if part.dtype.hasobject and part.ndim:
        blocks = list(object_blocks(part, where))
        return np.concatenate(blocks) if blocks else np.empty(part.shape, object)
    check_extent(part, part.shape, MAX_CHUNKS, where)
    _check_filters(part, where)
    check_sources(part, where)
    return np.asarray(part[()])


def group(file: h5py.File, path: str) -> Mapping[str, Any]:
    """The group at `path`, or an empty mapping."""
    found = file.get(path)
    return found if isinstance(found, h5py.Group) else {}


def text(value: Any) -> str:
    """A string from HDF5, stored in any of its ways. Empty if there is none."""
    if isinstance(value, h5py.Dataset):
        value = _first(value)
    if isinstance(value, np.ndarray):
        value = value.flat[0] if value.size else ""
    if isinstance(value, str):
        value = value.encode("utf-8", errors="surrogateescape")  # what h5py could not decode
    if isinstance(value, bytes):
        try:
            return value.decode("utf-8")
        except UnicodeDecodeError:
            return value.decode("latin-1")
    return "" if value is None else str(value)


def number(dataset: Any) -> float | None:
    """The first value of a scalar or one-element dataset, or None."""
    if not isinstance(dataset, h5py.Dataset) or dataset.dtype.kind not in "biuf" or not dataset.size:
        return None
    return float(_first(dataset))


def _first(dataset: h5py.Dataset) -> Any:
    """The first value, or None."""
    return dataset[(0,) * dataset.ndim] if dataset.size else None
