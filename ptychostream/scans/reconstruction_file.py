"""Files of reconstructions: one HDF5 file each. It is written atomically and read back exactly."""

from __future__ import annotations

import importlib
import json
import os
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from ptychostream.errors import ScanFileError
from ptychostream.scans.scan import Reconstruction
from ptychostream.storage.atomic import atomic_path, cannot_be_written
from ptychostream.storage.hdf5_heaps import open_checked
from ptychostream.storage.hdf5_output import hdf5_output

KIND = "ptychostream reconstruction"
VERSION = 1

# name: (dtype, dimensions, unit)
_ARRAYS: dict[str, tuple[type, int, str]] = {
    "object": (np.complex64, 2, ""),
    "probe": (np.complex64, 3, ""),
    "positions_m": (np.float64, 2, "m"),
    "errors": (np.float64, 1, ""),
    "coverage": (np.float32, 2, ""),
}


def write_reconstruction(path: str | os.PathLike[str], reconstruction: Reconstruction) -> None:
    """Write `reconstruction` to `path`, atomically.

    Layout: `/entry` (NXentry) has `object`, `probe`, `positions_m`, `errors`, `coverage` with the dtypes and
    shapes of `scan.Reconstruction`, `frames` and `residual` (the frames' R factors) where they are known,
    `positions_given_m` where positions were corrected, and `origin_m`, `pixel_m`, `scan_id`, `engine`, `provenance`
    (JSON).

    Raises
    ------
    ScanFileError
        The file cannot be written. No part of it is left behind.
    """
    try:
        with atomic_path(path) as temporary, hdf5_output(temporary) as file:
            _write(file, reconstruction)
    except OSError as error:
        raise cannot_be_written(path, error) from error


def _write(file: h5py.File, reconstruction: Reconstruction) -> None:
    file.attrs["file_kind"] = KIND
    file.attrs["file_version"] = VERSION
    file.attrs["default"] = "entry"
    entry = file.create_group("entry")
    entry.attrs["NX_class"] = "NXentry"
    for name, (dtype, _, unit) in _ARRAYS.items():
        array: NDArray[Any] = np.asarray(getattr(reconstruction, name), dtype=dtype)
        dataset = entry.create_dataset(name, data=array)
        if unit:
            dataset.attrs["units"] = unit
    if reconstruction.frames is not None:
        entry.create_dataset("frames", data=np.asarray(reconstruction.frames, np.int64))
    if reconstruction.residuals is not None:
        entry.create_dataset("residual", data=np.asarray(reconstruction.residuals, np.float32))
    if reconstruction.given_m is not None:
        given = entry.create_dataset("positions_given_m", data=np.asarray(reconstruction.given_m, np.float64))
        given.attrs["units"] = "m"
    for name in ("origin_m", "pixel_m"):
        entry.create_dataset(name, data=np.asarray(getattr(reconstruction, name), np.float64)).attrs["units"] = "m"
    for name in ("scan_id", "engine"):
        entry.create_dataset(name, data=getattr(reconstruction, name))
    entry.create_dataset("provenance", data=json.dumps(reconstruction.provenance, default=_plain))


def read_reconstruction(path: str | os.PathLike[str]) -> Reconstruction:
    """Read a file of `write_reconstruction`, or a product of ptychodus (HDF5 or npz).

    Raises
    ------
    ScanFileError
        The file is missing, damaged or no reconstruction, or its arrays have a wrong shape.
    """
    where = str(path)
    if not Path(path).is_file():
        raise ScanFileError("there is no such file", where=where, remedy="reconstruct the scan first")
    products = importlib.import_module("ptychostream.scans.exports.ptychodus")
    if products.is_archive(path):
        return products.read_product(path)
    try:
        with open_checked(path) as file:
            if products.is_product(file):
                return products.read_product(path)
            _check_kind(file, where)
            entry = file["entry"]
            arrays = {name: _array(entry, name, where) for name in _ARRAYS}
            each = (len(arrays["positions_m"]),)
            origin = entry["origin_m"][()]
            return Reconstruction(
                **arrays,
                origin_m=(float(origin[0]), float(origin[1])),
                pixel_m=float(entry["pixel_m"][()]),
                scan_id=entry["scan_id"].asstr()[()],
                engine=entry["engine"].asstr()[()],
                provenance=json.loads(entry["provenance"].asstr()[()]),
                frames=_of_frames(entry, "frames", "frames", np.int64, each, where),
                residuals=_of_frames(entry, "residual", "a residual", np.float32, each, where),
                given_m=_of_frames(entry, "positions_given_m", "given positions", np.float64, (*each, 2), where),
            )
    except (OSError, KeyError, ValueError, TypeError, RuntimeError) as error:
        raise ScanFileError(
            f"not a readable reconstruction: {error}",
            where=where,
            remedy="the file is damaged or from another program; reconstruct the scan again",
        ) from error


def is_reconstruction(path: str | os.PathLike[str]) -> bool:
    """Whether the file says that it is one of `write_reconstruction`; not whether it can be read."""
    try:
        with h5py.File(path, "r") as file:
            if "file_kind" not in file.attrs:
                return False
        with open_checked(path) as file:  # the text lies in a heap
            return bool(file.attrs["file_kind"] == KIND)
    except (OSError, RuntimeError, KeyError, ValueError, TypeError, ScanFileError):
        return False


def _check_kind(file: h5py.File, where: str) -> None:
    if file.attrs.get("file_kind") != KIND:
        raise ScanFileError(
            "HDF5, but not a reconstruction",
            where=where,
            remedy="give a file that `ptychostream reconstruct` wrote",
        )
    version = file.attrs.get("file_version")
    if version != VERSION:
        raise ScanFileError(
            f"reconstruction file version {version}, this program reads {VERSION}",
            where=where,
            remedy="use the version of ptychostream that wrote it",
        )


def _array(entry: h5py.Group, name: str, where: str) -> NDArray[Any]:
    dtype, dimensions, _ = _ARRAYS[name]
    array: NDArray[Any] = entry[name][()]
    if array.ndim != dimensions or array.dtype != np.dtype(dtype):
        raise ScanFileError(
            f"{name} is {array.dtype} with {array.ndim} dimensions, not {np.dtype(dtype)} with {dimensions}",
            where=where,
            remedy="reconstruct the scan again",
        )
    return array


def _of_frames(entry: h5py.Group, name: str, what: str, kind: type, shape: tuple[int, ...], where: str) -> Any:
    """An array that has a row for each position; None in files without it."""
    if name not in entry:
        return None
    found = entry[name][()]
    if found.shape != shape or found.dtype != kind or (kind is np.int64 and found.min(initial=0) < 0):
        raise ScanFileError(
            f"{what} of {found.dtype} {found.shape} for {shape[0]} positions",
            where=where,
            remedy="reconstruct the scan again",
        )
    return found


def _plain(value: Any) -> Any:
    """Convert numpy scalars, numpy arrays and paths for JSON. Raises TypeError for other types."""
    if isinstance(value, (np.generic, np.ndarray)):
        return value.tolist()
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"{type(value).__name__} cannot be stored as JSON")
