"""Route files hold the positions of a scan that are known beforehand.

CSV: the columns x, y or id, x, y, separated by commas, semicolons, tabs or blanks. `#` begins a comment. The first row
may give the names of the columns; then the columns may be in any order, and columns with other names are ignored.
HDF5: the one-dimensional data sets `x` and `y`, and optionally `id`, at the root. A column of shape [N, 1] is one too.
Columns and data sets with other names are read if their names (of data sets: their paths) are given.
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import TextIO

import h5py
import numpy as np
from numpy.typing import NDArray

from ptychostream.errors import ScanFileError
from ptychostream.storage.hdf5_heaps import open_checked

_REMEDY = "give a CSV with columns [id,] x, y, or an HDF5 file with data sets x and y"
MAX_POSITIONS = 1 << 24
MAX_LINE = 10_000
"""The longest row of a CSV, in characters."""
_SEPARATOR = re.compile(r"\s*[,;\t]\s*|\s+")
_HDF5_MAGIC = b"\x89HDF\r\n\x1a\n"


@dataclass(frozen=True)
class Route:
    """`x` and `y` [N] in the file's unit and axes. `ids` [N] are the frames' ids, None if they are in order.

    `units` are what the data sets of x and y say in their attribute `units`; empty if they say nothing.
    """

    ids: NDArray[np.int64] | None
    x: NDArray[np.float64]
    y: NDArray[np.float64]
    units: tuple[str, str] = ("", "")


def read_route(path: Path, columns: tuple[str, ...] | None = None) -> Route:
    """Read a route file. Its content, not its name, decides whether it is HDF5.

    Parameters
    ----------
    columns
        The names of the columns x, y and perhaps id, if they are called otherwise.

    Raises
    ------
    ScanFileError
        The file is unreadable or empty, rows differ in length, a value is no number, or an id occurs twice. The error
        names the row or data set.
    """
    try:
        with path.open("rb") as stream:
            is_hdf5 = stream.read(len(_HDF5_MAGIC)) == _HDF5_MAGIC
        names = dict(zip(("x", "y", "id"), columns or ("x", "y", "id"), strict=False))
        found, units = _read_hdf5(path, names) if is_hdf5 else (_read_csv(path, names), ("", ""))
    except OSError as error:
        raise ScanFileError(error.strerror or str(error), where=str(path), remedy=_REMEDY) from error
    except (RuntimeError, KeyError) as error:  # h5py raises these for a damaged file
        raise ScanFileError(f"damaged: {error}", where=str(path), remedy=_REMEDY) from error
    if len(found["x"]) == 0:
        raise ScanFileError("no positions", where=str(path), remedy=_REMEDY)
    return Route(_checked_ids(found.get("id"), path), found["x"], found["y"], units)


def _read_csv(path: Path, wanted: Mapping[str, str]) -> dict[str, NDArray[np.float64]]:
    """Read row by row: a row and the numbers are all that is in memory."""
    names: list[str] = []
    columns: dict[str, array[float]] = {}
    with path.open(encoding="utf-8-sig") as file:
        for number, texts in _rows(file, path):
            if not names:
                names, titled = _columns(texts, wanted, path)
                columns = {name: array("d") for name in ("id", "x", "y") if name in names}
                if titled:
                    continue
            where = f"{path}, row {number}"
            if len(texts) != len(names):
                raise ScanFileError(f"{len(texts)} columns instead of {len(names)}", where=where, remedy=_REMEDY)
            try:
                for name, column in columns.items():
                    column.append(float(texts[names.index(name)]))
            except ValueError:  # its text would quote the file, which a client of the IOC must not read
                raise ScanFileError("a value that is no number", where=where, remedy="write numbers only") from None
            if len(columns["x"]) > MAX_POSITIONS:
                raise ScanFileError(f"more than {MAX_POSITIONS:,} positions", where=where, remedy=_REMEDY)
    if not names:
        raise ScanFileError("empty", where=str(path), remedy=_REMEDY)
    return {name: np.array(column, np.float64) for name, column in columns.items()}


def _rows(file: TextIO, path: Path) -> Iterator[tuple[int, list[str]]]:
    """Number and columns of every row that has any."""
    for number in count(1):
        try:
            line = file.readline(MAX_LINE + 1)
        except UnicodeDecodeError as error:
            raise ScanFileError(f"neither text nor HDF5: {error}", where=str(path), remedy=_REMEDY) from error
        if not line:
            return
        if len(line) > MAX_LINE:
            what = f"a row of more than {MAX_LINE:,} characters"
            raise ScanFileError(what, where=f"{path}, row {number}", remedy=_REMEDY)
        if text := line.partition("#")[0].strip():
            yield number, _SEPARATOR.split(text)


def _columns(first: list[str], wanted: Mapping[str, str], path: Path) -> tuple[list[str], bool]:
    """What each column is, by the first row; and whether that row gives the names."""
    renamed = {name.lower(): key for key, name in wanted.items()}
    titles = [name.strip("\"'").lower() for name in first]
    names = [renamed.get(title, "" if title in wanted else title) for title in titles]
    if {"x", "y"} <= set(names):
        return names, True
    if any(key != name for key, name in wanted.items()):
        missing = ", ".join(name for name in wanted.values() if name.lower() not in titles)
        what = f"no column {missing} among {', '.join(first)}"
        raise ScanFileError(what, where=f"{path}, row 1", remedy="give --route-columns the names in the first row")
    if len(names) in (2, 3):
        return ["id", "x", "y"][-len(names) :], False
    raise ScanFileError(f"{len(names)} columns without names", where=f"{path}, row 1", remedy=_REMEDY)


def _read_hdf5(path: Path, wanted: Mapping[str, str]) -> tuple[dict[str, NDArray[np.float64]], tuple[str, str]]:
    columns, units = {}, {}
    with open_checked(path) as file:
        for key, name in wanted.items():
            data = file.get(name)
            if data is None and name == "id":
                continue
            if not isinstance(data, h5py.Dataset) or not _is_column(data) or data.dtype.kind not in "iuf":
                raise ScanFileError(
                    f"data set {name!r} is missing or not one-dimensional numbers", where=str(path), remedy=_REMEDY
                )
            if data.size > MAX_POSITIONS:
                raise ScanFileError(f"data set {name!r} announces {data.size} values", where=str(path), remedy=_REMEDY)
            columns[key] = data[()].astype(np.float64).ravel()
            units[key] = _unit_of(data)
    lengths = {name: len(column) for name, column in columns.items()}
    if len(set(lengths.values())) > 1:
        raise ScanFileError(f"data sets of different lengths {lengths}", where=str(path), remedy=_REMEDY)
    return columns, (units["x"], units["y"])


def _unit_of(data: h5py.Dataset) -> str:
    """What the attribute `units`, or `unit`, says; empty if there is none."""
    written = next((data.attrs[name] for name in data.attrs if str(name).lower() in ("units", "unit")), "")
    first = np.ravel(np.asarray(written, object))[0] if np.size(written) else ""
    return first.decode("utf-8", errors="replace") if isinstance(first, bytes) else str(first)


def _is_column(data: h5py.Dataset) -> bool:
    return data.ndim == 1 or (data.ndim == 2 and data.shape[1] == 1)


def _checked_ids(ids: NDArray[np.float64] | None, path: Path) -> NDArray[np.int64] | None:
    if ids is None:
        return None
    whole = np.isfinite(ids) & (ids == np.floor(ids)) & (np.abs(ids) < 2**53)
    if not whole.all():
        raise ScanFileError(
            f"id {ids[np.argmin(whole)]} is not a whole number", where=str(path), remedy="number the frames 0, 1, 2 …"
        )
    unique, count = np.unique(ids, return_counts=True)
    if len(unique) < len(ids):
        raise ScanFileError(
            f"id {int(unique[np.argmax(count)])} occurs {count.max()} times",
            where=str(path),
            remedy="give each frame one position",
        )
    return ids.astype(np.int64)
