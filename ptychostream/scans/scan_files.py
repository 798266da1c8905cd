"""Open scan files. The layout is found by the content of the file, not by its name."""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import h5py

from ptychostream.errors import FileMissingError, ScanFileError
from ptychostream.scans.scan import Scan
from ptychostream.scans.scan_hdf5 import open_hdf5
from ptychostream.scans.scan_parts import ScanOptions, build_scan

__all__ = ["ScanOptions", "open_scan"]

_HDF5_SIGNATURE = b"\x89HDF\r\n\x1a\n"
_ZIP_SIGNATURE = b"PK\x03\x04"
_LAYOUTS = ("nexus", "cxi")
"""Readers of HDF5 files in `ptychostream.scans.layouts`, in the order in which they are asked."""


@contextmanager
def open_scan(
    path: str | os.PathLike[str], options: ScanOptions | None = None, *, geometry: bool = True
) -> Iterator[Scan]:
    """Open a scan file: areaDetector's NeXus layout, CXI or npz.

    The counts stay on disk and are read by slices within the block. Everything else is read and checked at once. A scan
    without an id gets the name of the file. With `geometry=False` energy, distance and pixel may be missing (NaN).

    Raises
    ------
    ScanFileError
        The file is missing, of an unknown layout, damaged, cut short or still being written, or its parts do not fit
        together. Reading counts within the block can raise it too.

    Examples
    --------
    >>> with open_scan("scan247.h5") as scan:  # doctest: +SKIP
    ...     frame = scan.counts[0]
    """
    options = options or ScanOptions()
    where = str(path)
    signature = _signature(Path(path))
    if signature.startswith(_ZIP_SIGNATURE):
        yield _named(
            build_scan(_layout("npz").read_parts(where, options, where), options, where, geometry=geometry), path
        )
        return
    with open_hdf5(path, swmr=options.swmr) as file:
        yield _named(_read_hdf5(file, options, where, geometry=geometry), path)


def _read_hdf5(file: h5py.File, options: ScanOptions, where: str, *, geometry: bool) -> Scan:
    try:
        layout = next((layout for layout in map(_layout, _LAYOUTS) if layout.matches(file)), None)
        top = ", ".join(map(str, file))  # a name that is no text comes as bytes
        parts = layout.read_parts(file, options, where) if layout else None
    except (OSError, RuntimeError, KeyError, ValueError, TypeError, OverflowError) as error:
        raise ScanFileError(
            f"a part of the file cannot be read: {error}", where=where, remedy="the file is damaged; copy it again"
        ) from error
    if parts is None:
        looked_for = ", ".join(f"/{name}" for layout in map(_layout, _LAYOUTS) for name in layout.DATA)
        raise ScanFileError(
            f"HDF5 of an unknown layout: it has none of {looked_for}",
            where=where,
            remedy="write it as areaDetector's NDFileHDF5 or as CXI does; "
            f"at its top this file has: {top or 'nothing'}",
        )
    return build_scan(parts, options, where, geometry=geometry)


@cache
def _layout(name: str) -> Any:
    """The module that reads a layout. Each is loaded when the first file is opened."""
    return importlib.import_module(f"ptychostream.scans.layouts.{name}")


def _named(scan: Scan, path: str | os.PathLike[str]) -> Scan:
    scan.scan_id = scan.scan_id or Path(path).stem
    return scan


def _signature(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            start = file.read(len(_HDF5_SIGNATURE))
    except FileNotFoundError as error:
        raise FileMissingError("there is no such file", where=str(path), remedy="check the path") from error
    except OSError as error:
        raise ScanFileError(
            f"cannot be read: {error.strerror}", where=str(path), remedy="check that it is a file you may read"
        ) from error
    if start.startswith((_HDF5_SIGNATURE, _ZIP_SIGNATURE)) or h5py.is_hdf5(path):
        return start
    what = "the file is empty" if not start else "neither HDF5 nor npz"
    raise ScanFileError(what, where=str(path), remedy="give a NeXus (NDFileHDF5), CXI or npz scan file")
