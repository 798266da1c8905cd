"""Read any HDF5 file of which the user, or the file's only array of patterns, says where the patterns are.

`--data PATH` names the array; without it, it must be the only one with three axes or more, or one of the places that
programs agree on (`DATA`). Positions are two columns by path or by name (`--x-name`, `--y-name`), wherever they are: an
XML layout of NDFileHDF5 may place attributes as data sets.
"""

from __future__ import annotations

import h5py

from ptychostream.errors import ScanFileError
from ptychostream.scans.layouts.columns import data_sets
from ptychostream.scans.layouts.links import at, broken, broken_links, missing_link
from ptychostream.scans.layouts.nexus import read_around
from ptychostream.scans.scan_parts import ScanOptions, ScanParts

DATA = ("exchange/data", "entry/data", "data")


def read_parts(file: h5py.File, options: ScanOptions, where: str) -> ScanParts:
    """Read the array that is named or the only one. The counts stay on disk. Raises ScanFileError."""
    return read_around(file, _patterns(file, options, where), options, where)


def _patterns(file: h5py.File, options: ScanOptions, where: str) -> h5py.Dataset:
    if options.data is not None:
        return _named(file, options.data, where)
    for path in DATA:
        if isinstance(found := at(file, path), h5py.Dataset) and found.ndim >= 3:
            return found
    candidates = [found for found in data_sets(file) if found.ndim >= 3 and found.dtype.kind in "iuf" and found.size]
    if len(candidates) == 1:
        return candidates[0]
    if candidates:
        listed = ", ".join(sorted(f"{found.name} {found.shape}" for found in candidates)[:12])
        raise ScanFileError(
            f"HDF5 of an unknown layout with {len(candidates)} arrays that may be patterns",
            where=where,
            remedy=f"name the patterns with --data: {listed}",
        )
    for parent, name, target in broken_links(file):
        raise missing_link(parent, name, target, where)
    top = ", ".join(map(str, file)) or "nothing"
    raise ScanFileError(
        "HDF5 of an unknown layout: it has no array of patterns (frames, height, width)",
        where=where,
        remedy="name the patterns with --data, or write the file as areaDetector's NDFileHDF5 or as CXI does; "
        f"at its top this file has: {top}",
    )


def _named(file: h5py.File, path: str, where: str) -> h5py.Dataset:
    found = at(file, path)
    if isinstance(found, h5py.Dataset):
        return found
    parent_path, _, name = path.strip("/").rpartition("/")
    parent = at(file, parent_path) if parent_path else file
    if isinstance(parent, h5py.Group) and name in parent and (target := broken(parent, name)):
        raise missing_link(parent, name, target, where)
    arrays = sorted(f"{found.name} {found.shape}" for found in data_sets(file) if found.ndim >= 3)[:12]
    raise ScanFileError(
        f"{path} is a group" if isinstance(found, h5py.Group) else f"there is no {path}",
        where=where,
        remedy=f"give --data the path of the patterns; arrays of the file: {', '.join(arrays) or 'none'}",
    )
