"""Whole HDF5 and npz files that hold odd things where a scan file has its parts."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from fuzz.reader import Reader
from fuzz.scan_file import FOLDER, cxi, nexus, read

PATHS = (
    "entry", "entry/data", "entry/data/data", "entry/instrument", "entry/instrument/detector",
    "entry/instrument/detector/data", "entry/instrument/detector/distance",
    "entry/instrument/detector/x_pixel_size", "entry/instrument/detector/pixel_mask", "entry/instrument/beam",
    "entry/instrument/beam/incident_energy", "entry/instrument/source/probe", "entry/instrument/NDAttributes",
    "entry/instrument/NDAttributes/PositionX", "entry/instrument/NDAttributes/PositionY",
    "entry/instrument/NDAttributes/NDArrayUniqueId", "entry/instrument/NDAttributes/NDArrayTimeStamp",
    "entry/instrument/NDAttributes/odd", "entry/instrument/detector/NDAttributes", "entry/positions",
    "entry/ptychostream", "entry/ptychostream/metadata", "entry/ptychostream/probe", "entry/ptychostream/odd",
    "entry/entry_identifier", "entry_1/data_1/data", "entry_1/data_1/translation", "entry_1/data_1/is_fft_shifted",
    "entry_1/instrument_1/source_1/energy", "entry_1/instrument_1/detector_1",
    "entry_1/instrument_1/detector_1/distance", "entry_1/instrument_1/detector_1/x_pixel_size",
    "entry_1/instrument_1/detector_1/mask", "entry_1/instrument_1/detector_1/is_fft_shifted",
    "entry_1/experiment_identifier", "entry_1/title",
)  # fmt: skip
KEYS = ("counts", "positions_m", "energy_ev", "distance_m", "detector_pixel_m", "scan_id", "radiation", "bad_pixels",
        "probe", "frame_ids", "times", "odd")  # fmt: skip
_SHAPES = ((), (3,), (3, 2), (3, 4, 4), (4, 4), (1, 4, 4), (0,), (0, 4, 4), (3, 0, 4), (2,), (3, 3), (5, 4, 4),
           (3, 4, 4, 1))  # fmt: skip
_HUGE = ((1 << 40,), (1 << 40, 2), (1 << 20, 1 << 20), (3, 1 << 20, 1 << 20), (1 << 40, 4, 4), (1, 1 << 20, 1 << 20))
_DTYPES = ("u2", "f8", "f4", "i4", "c8", "?", "S4", "u8", "i1", "f2", "M8[s]", "V3", "i4,f4", "O")
_TEXTS = ("m", "mm", "furlong", "", "eV", "{}", "[1]", "{", '{"a": 1}', "1", "electron", "é", "POSIX")


def seeds() -> Iterable[bytes]:
    """One replacement each."""
    for layout in range(2):
        for place in range(len(PATHS)):
            for kind in (0, 80, 120, 200):
                yield bytes([layout, 0, place, kind, place, kind, 3, 1, 2])
    for place in range(len(KEYS)):
        for kind in (0, 100, 220):
            yield bytes([2, 0, place, kind, place, kind, 5, 1, 2])


def check(data: bytes) -> None:
    """Make one file and read it."""
    reader = Reader(data)
    with tempfile.TemporaryDirectory(dir=FOLDER) as folder:
        path = Path(folder) / "scan"
        layout = reader.byte() % 3
        try:
            _npz(path, reader) if layout == 2 else _hdf5(path, reader, cxi if layout else nexus)
        except (TypeError, ValueError, KeyError, OSError, RuntimeError, OverflowError):
            return  # cannot be written
        read(path)


def _hdf5(path: Path, reader: Reader, layout: Any) -> None:
    with h5py.File(path, "w") as file:
        layout(file)
        for _ in range(1 + reader.byte() % 3):
            odd_part(file, reader.choice(PATHS), reader)


def odd_part(file: h5py.File, name: str, reader: Reader) -> None:
    """Remove the part `name`, or put something odd in its place."""
    kind = reader.byte()
    if name in file:
        del file[name]
    if kind < 30:
        return
    if kind < 50:
        file.create_group(name)
    elif kind < 60:
        file[name] = h5py.SoftLink(reader.choice(PATHS))
    elif kind < 70:
        file[name] = h5py.ExternalLink("elsewhere.h5", "/data")
    elif kind < 100:
        file[name] = reader.choice(_TEXTS)
    elif kind < 110:
        file.create_dataset(name, dtype=reader.choice(_DTYPES), shape=None, data=h5py.Empty("f4"))
    elif kind < 150:
        shape = reader.choice(_HUGE)
        file.create_dataset(name, shape, reader.choice(_DTYPES[:6]), chunks=(1,) * len(shape))
    else:
        file[name] = _array(reader)
    if kind % 2 and isinstance(file.get(name), h5py.Dataset):
        file[name].attrs["units"] = reader.choice((*_TEXTS, 3, np.arange(3.0)))


def _npz(path: Path, reader: Reader) -> None:
    values: dict[str, Any] = {
        "counts": np.ones((3, 4, 4), np.uint16), "positions_m": np.zeros((3, 2)), "energy_ev": 1e4, "distance_m": 1.0,
        "detector_pixel_m": 5e-5,
    }  # fmt: skip
    for _ in range(1 + reader.byte() % 3):
        key = reader.choice(KEYS)
        values.pop(key, None)
        kind = reader.byte()
        if kind >= 30:
            values[key] = np.array(reader.choice(_TEXTS)) if kind < 80 else _array(reader)
    with path.open("wb") as file:
        (np.savez if reader.byte() % 2 else np.savez_compressed)(file, **values)


def _array(reader: Reader) -> Any:
    dtype, shape = np.dtype(reader.choice(_DTYPES)), reader.choice(_SHAPES)
    if dtype.kind == "O":
        return np.full(shape, reader.text(), object)
    if dtype.kind in "fiu":
        with np.errstate(all="ignore"):
            return np.full(shape, reader.number()).astype(dtype)
    return np.zeros(shape, dtype)
