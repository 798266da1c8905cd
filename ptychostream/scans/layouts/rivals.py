"""Two places of a file that give the same thing: they agree, or the file is refused. None is chosen silently."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

import h5py
import numpy as np
from numpy.typing import NDArray

from ptychostream.errors import ScanFileError
from ptychostream.scans.layouts.links import at
from ptychostream.scans.scan_hdf5 import checked_dataset, text

_NEXUS = ("data/data", "instrument/detector/data")
_CXI_DATA = re.compile(r"data_\d+")
_CXI_DETECTOR = re.compile(r"detector_\d+")
_ENTRY = re.compile(r"entry(_?\d+)?")
_REMEDY = "name the one that is meant with --data"


def nexus_patterns(file: h5py.File, where: str) -> str:
    """The path of the patterns in a NeXus file, `/entry/data/data` or the detector's own.

    Raises
    ------
    ScanFileError
        The two are different patterns, of other shapes or without a `signal` that says which is meant; the file's
        `default`, or the `signal` of `/entry/data`, names others; or there are several entries or detectors with
        patterns and the file does not say which is meant.
    """
    paths = [f"entry/{path}" for path in _NEXUS if _is_patterns(at(file, f"entry/{path}"))]
    if not paths:  # arrays of another number of axes, which are refused later
        return next(f"entry/{path}" for path in _NEXUS if isinstance(at(file, f"entry/{path}"), h5py.Dataset))
    chosen, default = paths[0], text(file.attrs.get("default"))
    others = {name: path for name in _entries(file) if (path := _patterns_of(file, name))}
    if default in others:
        raise _two(f"the file's `default` names {default}, which has {others[default]}", chosen, where)
    if others and default != "entry":
        raise _two(f"there is another entry with patterns, /{next(iter(others.values()))}", chosen, where)
    signal = text(_attribute(file, "entry/data", "signal"))
    named = at(file, f"entry/data/{signal}") if signal else None
    rivals = [named] if _is_patterns(named) else []
    if chosen == paths[-1]:
        rivals += [part for _, part in _of_detectors(file) if len(part) == len(file[chosen])]
    # Patterns that somebody corrected are the signal of `data`, those of the detector stay as they were.
    corrected = signal == "data" and all(file[path].shape == file[chosen].shape for path in paths)
    _refuse_others(file[chosen], [*rivals, *(file[path] for path in paths[1:] if not corrected)], where)
    return chosen


def cxi_patterns(file: h5py.File, paths: Iterable[str], where: str) -> str:
    """The first of `paths` that is there. Raises ScanFileError: the file has other patterns as well."""
    there = [path for path in paths if isinstance(at(file, path), h5py.Dataset)]
    chosen = next((path for path in there if _is_patterns(file[path])), there[0])
    rivals = [file[path] for path in there if path != chosen]
    for entry in ("entry_1", *_entries(file)):
        for parent, pattern in ((entry, _CXI_DATA), (f"{entry}/instrument_1", _CXI_DETECTOR)):
            names = [str(name) for name in at(file, parent) or () if pattern.fullmatch(str(name))]
            rivals += [part for name in names if (part := at(file, f"{parent}/{name}/data")) is not None]
    _refuse_others(file[chosen], [part for part in rivals if _is_patterns(part)], where)
    return chosen


def refuse_unequal(columns: Iterable[tuple[str, NDArray[np.float64]]], where: str, what: str, remedy: str) -> None:
    """Raise ScanFileError if two of these (place, values) give the same thing and differ."""
    listed = list(columns)
    for place, values in listed[1:]:
        first = listed[0][1]
        scale = max(float(np.nanmax(np.abs(first), initial=0.0)), 1e-300)
        if first.shape != values.shape or not np.allclose(first, values, rtol=1e-6, atol=1e-6 * scale, equal_nan=True):
            raise ScanFileError(f"{what}: {listed[0][0]} and {place} do not agree", where=where, remedy=remedy)


def same_object(a: h5py.Dataset, b: h5py.Dataset) -> bool:
    """Whether both are one data set, under two names."""
    one, other = h5py.h5o.get_info(a.id), h5py.h5o.get_info(b.id)
    return bool((one.fileno, one.addr) == (other.fileno, other.addr))


def same_patterns(a: h5py.Dataset, b: h5py.Dataset) -> bool:
    """Whether two data sets hold the same frames: one object, or equal in the first, the middle and the last frame."""
    if same_object(a, b):
        return True
    if (a.shape, a.dtype) != (b.shape, b.dtype) or not len(a):
        return False
    return all(np.array_equal(a[index], b[index]) for index in {0, len(a) // 2, len(a) - 1})


def _refuse_others(chosen: h5py.Dataset, rivals: Iterable[h5py.Dataset], where: str) -> None:
    checked_dataset(chosen, where)
    for rival in rivals:
        if not same_patterns(chosen, checked_dataset(rival, where)):
            raise _two(f"{rival.name} {rival.shape} are other patterns", str(chosen.name).strip("/"), where)


def _two(what: str, chosen: str, where: str) -> ScanFileError:
    return ScanFileError(f"which patterns are meant: {what} beside /{chosen}", where=where, remedy=_REMEDY)


def _entries(file: h5py.File) -> list[str]:
    """Names of the groups at the top that are entries, but for the first one, `entry` or `entry_1`."""
    names = [str(name) for name in file]
    first = "entry" if "entry" in names else "entry_1"
    return [
        name
        for name in names
        if name != first
        and (_ENTRY.fullmatch(name) or text(_attribute(file, name, "NX_class")) == "NXentry")
        and isinstance(at(file, name), h5py.Group)
    ]


def _patterns_of(file: h5py.File, entry: str) -> str:
    return next((f"{entry}/{path}" for path in _NEXUS if _is_patterns(at(file, f"{entry}/{path}"))), "")


def _of_detectors(file: h5py.File) -> Iterator[tuple[str, h5py.Dataset]]:
    for name in at(file, "entry/instrument") or ():
        path = f"entry/instrument/{name}/data"
        if _is_patterns(part := at(file, path)):
            yield path, part


def _attribute(file: h5py.File, path: str, name: str) -> object:
    found = at(file, path)
    return None if found is None else found.attrs.get(name)


def _is_patterns(part: object) -> bool:
    return isinstance(part, h5py.Dataset) and part.ndim >= 3 and part.dtype.kind in "iuf"
