"""Columns of values, one for each frame, found in an HDF5 file by a path or a name."""

from __future__ import annotations

import re
from functools import cached_property
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from ptychostream.errors import NoPositionsError, ScanFileError
from ptychostream.scans.hdf5_statements import state_units
from ptychostream.scans.layouts.links import at
from ptychostream.scans.layouts.raster import given_raster
from ptychostream.scans.scan_hdf5 import text, whole
from ptychostream.scans.scan_parts import ScanOptions
from ptychostream.statements.description import Description

_MOST_LOOKED_AT = 20_000
_PART = re.compile(r"(?P<path>.+?)(?::(?P<column>\d+))?")
_GROUPS = ("entry/instrument/NDAttributes", "entry/instrument/detector/NDAttributes", "NDAttributes")


class Walk:
    """Every data set of a file, looked for once and only if it is asked for."""

    def __init__(self, file: h5py.File) -> None:
        self._file = file

    @cached_property
    def data_sets(self) -> list[h5py.Dataset]:
        """See `data_sets`."""
        return data_sets(self._file)

    def called(self, name: str) -> list[h5py.Dataset]:
        """Those of this name, wherever an XML layout of areaDetector has placed them."""
        return [
            dataset
            for dataset in self.data_sets
            if str(dataset.name).rsplit("/", 1)[-1] == name or text(dataset.attrs.get("NDAttrName")) == name
        ]


def find(file: h5py.File, name: str, where: str, walk: Walk | None = None) -> h5py.Dataset | None:
    """The data set at the path `name`, or the only one of the file that is called so. None if there is none.

    A data set that areaDetector made of an attribute keeps its name as `NDAttrName`, wherever an XML layout places it.

    Raises ScanFileError if several data sets that are not the same one have this name.
    """
    for path in (name, *(f"{group}/{name}" for group in _GROUPS)):
        if isinstance(found := file.get(path), h5py.Dataset):
            return found
    if "/" in name:
        return None
    same = (walk or Walk(file)).called(name)
    if len(same) > 1:
        raise ScanFileError(
            f"{len(same)} data sets are called {name}: {', '.join(sorted(str(found.name) for found in same))}",
            where=where,
            remedy="give the whole path of the one that is meant",
        )
    return same[0] if same else None


def data_sets(file: h5py.File) -> list[h5py.Dataset]:
    """Every data set of the file, links followed, each once."""
    found: dict[Any, h5py.Dataset] = {}
    waiting: list[h5py.Group] = [file]
    seen: set[Any] = set()
    looked = 0
    while waiting:
        current = waiting.pop()
        info = h5py.h5o.get_info(current.id)
        if (key := (info.fileno, info.addr)) in seen:
            continue
        seen.add(key)
        for name in current:
            looked += 1
            if looked > _MOST_LOOKED_AT:
                return list(found.values())
            child = at(current, name)
            if isinstance(child, h5py.Group):
                waiting.append(child)
            elif isinstance(child, h5py.Dataset):
                about = h5py.h5o.get_info(child.id)
                found.setdefault((about.fileno, about.addr), child)
    return list(found.values())


def column(
    file: h5py.File, name: str, where: str, walk: Walk | None = None
) -> tuple[h5py.Dataset, NDArray[Any]] | None:
    """The data set that `name` means, and its values [N]. None if there is no such data set.

    `name` is a path, a name, or one of them with `:K` for column K of a table [N, columns]. A column of shape [N, 1] or
    [1, N], and one that has the axes of a raster, are flattened; the last axis is the fastest.

    Raises
    ------
    ScanFileError
        It holds no numbers, or has several columns and none is chosen.
    """
    match = _PART.fullmatch(name)
    path, which = (match["path"], match["column"]) if match else (name, None)
    dataset = find(file, path, where, walk)
    if dataset is None:
        return None
    values = whole(dataset, where, "iuf")
    if which is not None:
        if values.ndim != 2 or int(which) >= values.shape[1]:
            what = f"{dataset.name} of shape {values.shape} has no column {which}"
            raise ScanFileError(what, where=where, remedy="give :K with K from 0, of a table [frames, columns]")
        return dataset, values[:, int(which)]
    return dataset, values.ravel()


def read_places(file: h5py.File, options: ScanOptions, said: Description, where: str) -> NDArray[np.float64] | None:
    """[N, 2] positions as stored, by the names in `options`, or the raster that they describe. None with a route.

    Raises
    ------
    NoPositionsError
        Nothing gives positions.
    ScanFileError
        The columns differ in length, or a name is not clear.
    """
    if options.route is not None:
        return None
    names, walk = (options.x_name, options.y_name), Walk(file)
    if (places := named_columns(file, names, said, where, walk)) is not None:
        return places
    if (raster := given_raster(options, said)) is not None:
        return raster
    missing = " and ".join(name for name in names if find(file, name.partition(":")[0], where, walk) is None)
    raise NoPositionsError(
        f"no positions: there is no {missing} in the file",
        where=where,
        remedy="name the two columns with --x-name and --y-name, give a route file (--route), or the raster with "
        f"--scan-shape and --scan-step-m; columns of the file: {_listed(walk)}",
    )


def named_columns(
    file: h5py.File, names: tuple[str, str], said: Description, where: str, walk: Walk | None = None
) -> NDArray[np.float64] | None:
    """[N, 2] of the two columns, wherever in the file they are, and their units into `said`. None if one is not there.

    Raises ScanFileError: they differ in length, hold no numbers, or a name is not clear.
    """
    walk = walk or Walk(file)
    x, y = (column(file, name, where, walk) for name in names)
    if x is None or y is None:
        return None
    if len(x[1]) != len(y[1]):
        raise ScanFileError(
            f"{names[0]} has {len(x[1])} values but {names[1]} {len(y[1])}",
            where=where,
            remedy="name two columns of one scan with --x-name and --y-name",
        )
    state_units(said, x[0], y[0], where, (_chosen(names[0]), _chosen(names[1])))
    return np.stack([x[1], y[1]], axis=1).astype(np.float64)


def _chosen(name: str) -> int | None:
    """K of a name `PATH:K`."""
    match = _PART.fullmatch(name)
    return int(match["column"]) if match and match["column"] else None


def _listed(walk: Walk) -> str:
    """Names of the file's columns of numbers, some of them."""
    columns = [part for part in walk.data_sets if 1 <= part.ndim <= 2 and part.dtype.kind in "iuf" and part.size > 1]
    names = sorted(str(part.name) for part in columns)
    return (", ".join(names[:12]) + (" …" if len(names) > 12 else "")) or "none"
