"""Scan files of damaged bytes: a scan whose frames can be read, or a ScanFileError.

Each layout of HDF5 has two seeds: its texts of fixed length, and of variable length, which lie in a global heap.
"""

from __future__ import annotations

import io
import os
import tempfile
from collections.abc import Iterable
from pathlib import Path

import h5py
import numpy as np

from ptychostream.errors import ScanFileError
from ptychostream.scans.scan_files import open_scan

FOLDER = "/dev/shm" if Path("/dev/shm").is_dir() else None
_COUNTS = np.arange(3 * 4 * 4, dtype=np.uint16).reshape(3, 4, 4)
_XY = np.array([[0.0, 0], [1e-5, 0], [0, 1e-5]])


def seeds() -> Iterable[bytes]:
    """The smallest whole file of each layout."""
    for layout in (nexus, cxi):
        for change in (lambda _: None, unfix):
            stream = io.BytesIO()
            with h5py.File(stream, "w") as file:
                layout(file)
                change(file)
            yield stream.getvalue()
    for save in (np.savez, np.savez_compressed):
        stream = io.BytesIO()
        save(stream, counts=_COUNTS, positions_m=_XY, energy_ev=1e4, distance_m=1.0, detector_pixel_m=5e-5,
             scan_id="7", bad_pixels=np.zeros((4, 4), bool), frame_ids=np.arange(3), times=np.arange(3.0))  # fmt: skip
        yield stream.getvalue()


def nexus(file: h5py.File) -> None:
    """What NDFileHDF5 and our writer keep."""
    file["entry/data/data"] = _COUNTS
    for name, column in (("PositionX", _XY[:, 0]), ("PositionY", _XY[:, 1])):
        file[f"entry/instrument/NDAttributes/{name}"] = column
        file[f"entry/instrument/NDAttributes/{name}"].attrs["units"] = np.bytes_("m")
    file["entry/instrument/NDAttributes/NDArrayUniqueId"] = np.arange(3)
    file["entry/instrument/NDAttributes/NDArrayTimeStamp"] = np.arange(3.0)
    file["entry/instrument/beam/incident_energy"] = 1e4
    file["entry/instrument/detector/distance"] = 1.0
    file["entry/instrument/detector/x_pixel_size"] = 5e-5
    file["entry/instrument/detector/pixel_mask"] = np.zeros((4, 4), np.uint32)
    file["entry/ptychostream/metadata"] = np.bytes_('{"a": 1}')
    file["entry/ptychostream/probe"] = np.ones((1, 4, 4), np.complex64)
    file["entry/entry_identifier"] = np.bytes_("7")


def cxi(file: h5py.File) -> None:
    """What CXI files hold."""
    file["entry_1/data_1/data"] = _COUNTS
    file["entry_1/data_1/translation"] = np.pad(_XY, ((0, 0), (0, 1)))
    file["entry_1/instrument_1/source_1/energy"] = 1.6e-15
    file["entry_1/instrument_1/detector_1/distance"] = 1.0
    file["entry_1/instrument_1/detector_1/x_pixel_size"] = 5e-5
    file["entry_1/instrument_1/detector_1/mask"] = np.zeros((4, 4), np.uint32)
    file["entry_1/instrument_1/detector_1/is_fft_shifted"] = 1
    file["entry_1/experiment_identifier"] = np.bytes_("7")


def unfix(file: h5py.File) -> None:
    """Give its texts a variable length."""
    texts: dict[str, h5py.Dataset] = {}
    file.visititems(lambda name, part: texts.update({name: part}) if part.attrs or _is_text(part) else None)
    for name, part in texts.items():
        for key, value in part.attrs.items():
            part.attrs[key] = value.decode()
        if _is_text(part):
            text = part[()].decode()
            del file[name]
            file[name] = text


def _is_text(part: h5py.Dataset | h5py.Group) -> bool:
    return isinstance(part, h5py.Dataset) and part.dtype.kind == "S"


def check(data: bytes) -> None:
    """Open one file and read its ends."""
    handle, name = tempfile.mkstemp(suffix=".scan", dir=FOLDER)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        read(Path(name))
    finally:
        Path(name).unlink()


def read(path: Path) -> None:
    """Open and read the first and the last frame."""
    try:
        with open_scan(path) as scan:
            assert len(scan) == len(scan.counts) > 0
            assert np.isfinite(scan.positions_m).all()
            for index in (0, -1):
                assert scan.counts[index].dtype.kind in "iu"
    except ScanFileError as error:
        assert error.remedy
