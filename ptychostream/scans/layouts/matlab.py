"""Read arrays that MATLAB wrote as version 7.3 (HDF5): one array of all patterns, or a folder of one file a pattern.

MATLAB stores its first axis last in the file, so an array `dp(rows, columns, frames)` is [frames, columns, rows] for
HDF5, and each pattern has to be transposed. Such an array has the attribute `MATLAB_class`. A file of `h5create` and
`h5write` has it not: there `--transpose` says so.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from ptychostream.errors import NoPositionsError, ScanFileError
from ptychostream.scans.layouts.raster import given_raster
from ptychostream.scans.layouts.stacks import CalledFrames
from ptychostream.scans.scan_hdf5 import checked_dataset, open_hdf5
from ptychostream.scans.scan_parts import ScanOptions, ScanParts
from ptychostream.statements.description import Description

_NUMBER = re.compile(r"(\d+)(?=\.[^.]*$)")
_SUFFIXES = (".mat", ".h5", ".hdf5")


def is_matlab(dataset: Any) -> bool:
    """Whether MATLAB wrote this array as a variable."""
    return isinstance(dataset, h5py.Dataset) and "MATLAB_class" in dataset.attrs


@contextmanager
def open_folder(path: str, options: ScanOptions) -> Iterator[ScanParts]:
    """Read a folder of numbered files, one pattern in each. Their positions come from a route or from a raster.

    Raises
    ------
    ScanFileError
        A number is missing or occurs twice, a file has another array, or nothing gives positions.
    """
    where = path
    files = _numbered(Path(path))
    first, transpose = _pattern(files[0], options)
    said = Description(where)

    def read(index: int) -> NDArray[Any]:
        with open_hdf5(files[index]) as file:
            dataset = file.get(first.name)
            if not isinstance(dataset, h5py.Dataset) or (dataset.shape, dataset.dtype) != (first.shape, first.dtype):
                found = f"{dataset.dtype} {dataset.shape}" if isinstance(dataset, h5py.Dataset) else "none"
                raise ScanFileError(
                    f"{first.name} is {found}, and {first.dtype} {first.shape} in {files[0].name}",
                    where=str(files[index]),
                    remedy="move files that are no patterns of this scan to another folder",
                )
            values = np.asarray(dataset[()])
        return values.T if transpose else values

    shape = first.shape[::-1] if transpose else first.shape
    positions = None if options.route is not None else given_raster(options, said)
    if positions is None and options.route is None:
        raise NoPositionsError(
            f"{len(files)} files of one pattern each, and nothing says where they were taken",
            where=where,
            remedy="give --scan-shape ROWS COLUMNS and --scan-step-m Y X, or a route file (--route)",
        )
    counts = CalledFrames((len(files), *shape), first.dtype, read)
    yield ScanParts(counts=counts, raw_positions=positions, said=said, obeys=frozenset({"transpose"}))


class _First:
    """What the first file says of its array."""

    def __init__(self, dataset: h5py.Dataset) -> None:
        self.name, self.shape, self.dtype = str(dataset.name), dataset.shape, dataset.dtype


def _pattern(path: Path, options: ScanOptions) -> tuple[_First, bool]:
    with open_hdf5(path) as file:
        if options.data is not None:
            named = file.get(options.data)
            found = [named] if isinstance(named, h5py.Dataset) else []
        else:
            found = [
                part for part in file.values() if isinstance(part, h5py.Dataset) and part.ndim == 2 and part.size > 1
            ]
        if len(found) != 1 or found[0].ndim != 2:
            names = ", ".join(f"/{name} {getattr(part, 'shape', '')}" for name, part in file.items())
            raise ScanFileError(
                f"no single array of one pattern; it has {names or 'nothing'}",
                where=str(path),
                remedy="name the array of the pattern with --data",
            )
        checked_dataset(found[0], str(path))
        return _First(found[0]), is_matlab(found[0]) or options.transpose


def _numbered(folder: Path) -> list[Path]:
    numbers: dict[int, Path] = {}
    for path in folder.iterdir():
        match = _NUMBER.search(path.name)
        if path.suffix.lower() not in _SUFFIXES or match is None:
            continue
        number = int(match[1])
        if number in numbers:
            raise ScanFileError(
                f"{numbers[number].name} and {path.name} have the same number",
                where=str(folder),
                remedy="leave only the files of one scan in the folder",
            )
        numbers[number] = path
    if not numbers:
        raise ScanFileError(
            "a folder without numbered files of patterns",
            where=str(folder),
            remedy=f"give a scan file, or a folder of NAME_1.mat, NAME_2.mat … ({', '.join(_SUFFIXES)})",
        )
    wanted = range(min(numbers), min(numbers) + len(numbers))
    if missing := sorted(set(wanted) - set(numbers)):
        raise ScanFileError(
            f"pattern {missing[0]} is missing between {min(numbers)} and {max(numbers)}",
            where=str(folder),
            remedy="copy the folder again; which pattern belongs to which position cannot be guessed",
        )
    return [numbers[number] for number in wanted]
