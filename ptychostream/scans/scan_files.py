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
from ptychostream.scans.scan_parts import ScanOptions, ScanParts, build_scan

__all__ = ["ScanOptions", "open_scan"]

_HDF5_SIGNATURE = b"\x89HDF\r\n\x1a\n"
_ZIP_SIGNATURE = b"PK\x03\x04"
_LAYOUTS = ("dectris", "nexus", "cxi", "ptychi_pair", "ptychodus", "ptylab", "ptyd", "electron.hspy", "electron.emd")
"""Readers of HDF5 files in `ptychostream.scans.layouts`, in the order in which they are asked."""
_BY_NAME = ("cxi", "electron.hspy", "electron.emd")
"""Layouts of which `ScanOptions.data` may name one array of several."""
_HEAD = 256


@contextmanager
def open_scan(
    path: str | os.PathLike[str], options: ScanOptions | None = None, *, geometry: bool = True
) -> Iterator[Scan]:
    """Open a scan file, or a folder of one file a pattern. The layout is found by the content.

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
    with open_parts(path, options) as parts:
        yield _named(build_scan(parts, options, str(path), geometry=geometry), path)


@contextmanager
def open_parts(path: str | os.PathLike[str], options: ScanOptions) -> Iterator[ScanParts]:
    """Open a scan file as `open_scan` does, for what it says, before that is checked. Raises ScanFileError."""
    with _open_layout(path, options) as parts:
        _check_obeyed(parts, options, str(path))
        if options.transpose and parts.bad_pixels is not None:
            parts.bad_pixels = parts.bad_pixels.T
        yield parts


@contextmanager
def _open_layout(path: str | os.PathLike[str], options: ScanOptions) -> Iterator[ScanParts]:
    where = str(path)
    start = _start(Path(path))
    if start.startswith(_ZIP_SIGNATURE) and Path(path).suffix != ".zspy":
        yield _layout("npz").read_parts(where, options, where)
        return
    if not (start.startswith(_HDF5_SIGNATURE) or (start and h5py.is_hdf5(path))):
        with _other(Path(path), start)(where, options) as parts:
            yield parts
        return
    with open_hdf5(path, swmr=options.swmr) as file:
        yield _read_hdf5(file, options, where)


def _check_obeyed(parts: ScanParts, options: ScanOptions, where: str) -> None:
    """Raise ScanFileError for an option about the axes of the patterns that this layout's reader does not follow."""
    remedy = "leave it out, or name the array: --data PATH, with --scan-shape or positions, is read with all options"
    for name, given in (("pick", bool(options.pick)), ("transpose", options.transpose)):
        if given and name not in parts.obeys:
            raise ScanFileError(
                f"--{name} has no effect on this layout, whose axes are fixed", where=where, remedy=remedy
            )
    if options.transpose and parts.probe is not None:
        what = "--transpose exchanges rows and columns of the patterns, and the file has a probe that belongs to them"
        raise ScanFileError(what, where=where, remedy="leave it out, or write the file anew")


def _read_hdf5(file: h5py.File, options: ScanOptions, where: str) -> ScanParts:
    names = _LAYOUTS if options.data is None else _BY_NAME if options.scan_shape is None else ()
    try:
        layouts = (layout for layout in map(_layout, names) if layout.matches(file))
        parts: ScanParts = next(layouts, _layout("generic")).read_parts(file, options, where)
    except (OSError, RuntimeError, KeyError, ValueError, TypeError, OverflowError) as error:
        if "too many links" in str(error):
            what = "a link in the file leads back to itself"
            raise ScanFileError(what, where=where, remedy="write the file anew without this link") from error
        raise ScanFileError(
            f"a part of the file cannot be read: {error}", where=where, remedy="the file is damaged; copy it again"
        ) from error
    return parts


def _other(path: Path, start: bytes) -> Any:
    """The reader of what is neither HDF5 nor npz. Raises ScanFileError if there is none."""
    if path.is_dir() and path.suffix != ".zspy":
        return _layout("matlab").open_folder
    found = _layout("electron.formats").opener(path, start)
    if found is None:
        what = "the file is empty" if not start else "neither HDF5 nor npz, and of no other known layout"
        remedy = "docs/reference/scan-files.md lists the layouts that are read: NeXus (NDFileHDF5), CXI, DECTRIS, npz …"
        raise ScanFileError(what, where=str(path), remedy=remedy)
    return found


@cache
def _layout(name: str) -> Any:
    """The module that reads a layout. Each is loaded when the first file is opened."""
    return importlib.import_module(f"ptychostream.scans.layouts.{name}")


def _named(scan: Scan, path: str | os.PathLike[str]) -> Scan:
    scan.scan_id = scan.scan_id or Path(path).stem
    return scan


def _start(path: Path) -> bytes:
    """The first bytes of the file; none of a folder."""
    try:
        if path.is_dir():
            return b""
        with path.open("rb") as file:
            return file.read(_HEAD)
    except FileNotFoundError as error:
        raise FileMissingError("there is no such file", where=str(path), remedy="check the path") from error
    except OSError as error:
        raise ScanFileError(
            f"cannot be read: {error.strerror}", where=str(path), remedy="check that it is a file you may read"
        ) from error
