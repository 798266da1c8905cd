"""The files behind a virtual HDF5 data set. HDF5 reads a source that is missing as zeros, without an error."""

from __future__ import annotations

import bisect
import itertools
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np
from numpy.typing import NDArray

from ptychostream.errors import FileMissingError, ScanFileError

_SAME_FILE = "."
_BLOCK = "%b"
_COPY = "copy it to where the master looks for it, or copy the master again together with its files"


class _Source(NamedTuple):
    """A part of a virtual data set: its first index and the one after its last, and where it comes from."""

    start: int
    stop: int
    file: str
    dataset: str


class VirtualFrames:
    """[N, H, W] frames of a virtual data set, each read only if its source is there.

    `shape`, `dtype`, and `[i]` and `[i:j]` are those of an array. A source is opened once, when its first frame is
    read.
    """

    def __init__(self, dataset: h5py.Dataset, where: str) -> None:
        self.shape: tuple[int, ...] = dataset.shape
        self.dtype: np.dtype[Any] = dataset.dtype
        self._dataset, self._where = dataset, where
        self._left = sorted(_sources(dataset.virtual_sources(), len(dataset)))  # those that were not opened yet
        self._index()

    def __getitem__(self, key: int | slice) -> NDArray[Any]:
        frames = range(len(self._dataset))[key]
        chosen = range(frames, frames + 1) if isinstance(frames, int) else frames
        if self._left and len(chosen):
            self._check(min(chosen[0], chosen[-1]), max(chosen[0], chosen[-1]))
        return np.asarray(self._dataset[key])

    def _check(self, first: int, last: int) -> None:
        """Open the sources of these frames that were not opened yet."""
        begin = bisect.bisect_right(self._stops, first)
        end = bisect.bisect_right(self._left, last, key=lambda source: source.start)
        touched = [source for source in self._left[begin:end] if source.stop > first]
        for source in touched:
            _check_part(source, self._dataset, self._where)
        if touched:
            gone = set(touched)
            self._left[begin:end] = [source for source in self._left[begin:end] if source not in gone]
            self._index()

    def _index(self) -> None:
        """The highest frame that the sources up to each one reach, in rising order."""
        self._stops = list(itertools.accumulate((source.stop for source in self._left), max))


def check_sources(dataset: h5py.Dataset, where: str) -> None:
    """Check that every source file of a virtual data set is there, and that no part of it is without a source.

    No source is opened, so that a thousand files take some hundredths of a second. A data set that is not virtual
    passes.

    Raises
    ------
    FileMissingError
        A source file is missing; the error names it.
    ScanFileError
        A part of `dataset` has no source.
    """
    if not dataset.is_virtual or not dataset.size:
        return
    maps = dataset.virtual_sources()
    for name in dict.fromkeys(source.file for source in _sources(maps, len(dataset))):
        if _found(name, dataset) is None:
            what = f"{dataset.name} is virtual, and its file {name} is not there"
            raise FileMissingError(what, where=where, remedy=_COPY)
    covered = _covered(dataset, maps)
    if covered is not None and covered < dataset.size:
        what = f"{dataset.name} is virtual, and {dataset.size - covered} of its {dataset.size} values have no source"
        raise ScanFileError(what, where=where, remedy="write the virtual data set again for the files that there are")


def _sources(maps: Sequence[Any], length: int) -> list[_Source]:
    """The sources in other files. Of names with a block number (`%b`) only the first block is known."""
    found = []
    for source in maps:
        if source.file_name != _SAME_FILE:
            first, last = _extent(source.vspace, length)
            found.append(
                _Source(first, last, source.file_name.replace(_BLOCK, "0"), source.dset_name.replace(_BLOCK, "0"))
            )
    return found


def _extent(space: Any, length: int) -> tuple[int, int]:
    """First index and the one after the last along the first axis; all of it where the selection may grow."""
    try:
        low, high = space.get_select_bounds()
    except (ValueError, RuntimeError):
        return 0, length
    return int(low[0]), int(high[0]) + 1


def _covered(dataset: h5py.Dataset, maps: Sequence[Any]) -> int | None:
    """The number of values that have a source, each counted once if all sources are of whole frames. None where a
    selection may grow.
    """
    values, frames = 0, np.zeros(len(dataset), np.bool_)
    whole_frames = True
    for source in maps:
        try:
            points = int(source.vspace.get_select_npoints())
            low, high = source.vspace.get_select_bounds()
        except (ValueError, RuntimeError, OverflowError):
            return None
        values += points
        frames[low[0] : high[0] + 1] = True
        whole_frames = whole_frames and points == (high[0] - low[0] + 1) * (dataset.size // len(dataset))
    return int(frames.sum()) * (dataset.size // len(dataset)) if whole_frames else values


def _found(name: str, dataset: h5py.Dataset) -> Path | None:
    """Where HDF5 finds the file `name`: there, beside the master, or by its last part beside the master."""
    folder = Path(os.fsdecode(dataset.file.filename)).parent
    path = Path(name)
    places = (path, folder / path.name) if path.is_absolute() else (folder / path, path)
    return next((place for place in places if place.exists()), None)


def _check_part(source: _Source, dataset: h5py.Dataset, where: str) -> None:
    """Open the source of a part. Raises ScanFileError: it is missing, or has not the data set."""
    path = _found(source.file, dataset)
    what = f"{dataset.name} is virtual, and its file {source.file} is not there"
    if path is None:
        raise FileMissingError(what, where=where, remedy=_COPY)
    try:
        file = h5py.h5f.open(os.fsencode(path), h5py.h5f.ACC_RDONLY)
        try:
            frames = h5py.h5d.open(file, source.dataset.encode()).shape
        finally:
            file.close()
    except (OSError, RuntimeError, KeyError) as error:
        what = f"{dataset.name} is virtual, and its source {source.file}:{source.dataset} cannot be opened: {error}"
        raise ScanFileError(what, where=where, remedy=_COPY) from error
    if not frames or frames[0] == 0:
        what = f"{dataset.name} is virtual, and its source {source.file}:{source.dataset} is empty"
        raise ScanFileError(what, where=where, remedy=_COPY)
