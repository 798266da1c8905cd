"""Whole HDF5 files of other programs' layouts that hold odd things where a part belongs."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from fuzz.reader import Reader
from fuzz.scan_file import FOLDER
from fuzz.scan_structure import odd_part

from ptychostream.errors import ScanFileError
from ptychostream.scans.scan_files import ScanOptions, open_scan

_COUNTS = np.arange(3 * 4 * 4, dtype=np.uint16).reshape(3, 4, 4)
_XY = np.array([[0.0, 0], [1e-7, 0], [0, 1e-7]])
_OPTIONS = (
    ScanOptions(energy_ev=1e4, distance_m=1.0, detector_pixel_m=1e-4),
    ScanOptions(energy_ev=1e4, distance_m=1.0, detector_pixel_m=1e-4, scan_shape=(1, 3), scan_step_m=(1e-7, 1e-7)),
    ScanOptions(energy_ev=1e4, data="dp", x_name="x", y_name="y", pick=((0, 0),), transpose=True),
)


def dectris(file: h5py.File) -> None:
    file["entry/data/data_000001"], file["entry/data/data_000002"] = _COUNTS[:2], _COUNTS[2:]
    for number, low, high in ((1, 1, 2), (2, 3, 3)):
        attributes = file[f"entry/data/data_{number:06d}"].attrs
        attributes["image_nr_low"], attributes["image_nr_high"] = low, high
    detector = "entry/instrument/detector"
    for name, value in (("detector_distance", 1.0), ("x_pixel_size", 1e-4), ("bit_depth_image", 16)):
        file[f"{detector}/{name}"] = value
    file[f"{detector}/description"] = "Dectris ARINA"
    file[f"{detector}/detectorSpecific/pixel_mask"] = np.zeros((4, 4), np.uint32)
    file[f"{detector}/detectorSpecific/photon_energy"] = 2e5
    file["PositionX"], file["PositionY"] = _XY.T


def ptylab(file: h5py.File) -> None:
    file["ptychogram"], file["encoder"], file["zo"], file["dxd"] = _COUNTS, _XY, 1.0, 1e-4
    file["wavelength"], file["orientation"] = 1e-10, 0


def ptyd(file: h5py.File) -> None:
    for name, value in (("energy", 10.0), ("distance", 1.0), ("psize", [1e-4, 1e-4]), ("center", [2.0, 2.0])):
        file[f"meta/{name}"] = value
    file["chunks/0/data"], file["chunks/0/positions"], file["chunks/0/indices"] = _COUNTS, _XY, np.arange(3)
    file["chunks/0/weights"] = np.ones((3, 4, 4), np.uint8)


def ptychodus(file: h5py.File) -> None:
    file["patterns"], file["indexes"], file["bad_pixels"] = _COUNTS, np.arange(3), np.zeros((4, 4), bool)


def pair(file: h5py.File) -> None:
    file["dp"], file["x"], file["y"] = _COUNTS, _XY[:, 0], _XY[:, 1]


def hspy(file: h5py.File) -> None:
    signal = file.create_group("Experiments/a")
    signal["data"] = _COUNTS.reshape(1, 3, 4, 4)
    for index, (name, unit) in enumerate((("y", "nm"), ("x", "nm"), ("ky", "1/nm"), ("kx", "1/nm"))):
        axis = signal.create_group(f"axis-{index}")
        axis.attrs.update({"name": name, "units": unit, "scale": 0.1, "navigate": index < 2})
    signal.create_group("metadata/Acquisition_instrument/TEM").attrs["beam_energy"] = 200.0


def emd(file: h5py.File) -> None:
    group = file.create_group("root/cube")
    group.attrs["python_class"] = "DataCube"
    group["data"] = _COUNTS.reshape(1, 3, 4, 4)
    for index, (name, unit) in enumerate((("Rx", "nm"), ("Ry", "nm"), ("Qx", "A^-1"), ("Qy", "A^-1"))):
        group[f"dim{index}"] = [0.0, 0.1]
        group[f"dim{index}"].attrs["name"], group[f"dim{index}"].attrs["units"] = name, unit


def generic(file: h5py.File) -> None:
    file["a/b"], file["c/PositionX"], file["c/PositionY"] = _COUNTS, _XY[:, 0], _XY[:, 1]
    file["d"] = h5py.SoftLink("/a")


LAYOUTS: tuple[Callable[[h5py.File], None], ...] = (dectris, ptylab, ptyd, ptychodus, pair, hspy, emd, generic)


def seeds() -> Iterable[bytes]:
    """One replacement each."""
    for layout in range(len(LAYOUTS)):
        for option in range(len(_OPTIONS)):
            for place in range(0, 24, 3):
                for kind in (0, 55, 80, 120, 200):
                    yield bytes([layout, option, 0, place, kind, place, kind, 3, 1, 2])


def check(data: bytes) -> None:
    """Make one file and read it: a scan whose frames can be read, or ScanFileError with a remedy."""
    reader = Reader(data)
    layout, options = reader.choice(LAYOUTS), reader.choice(_OPTIONS)
    with tempfile.TemporaryDirectory(dir=FOLDER) as folder:
        path = Path(folder) / "scan_dp.hdf5"
        try:
            with h5py.File(path, "w") as file:
                layout(file)
                for _ in range(1 + reader.byte() % 3):
                    _change(file, reader)
        except (TypeError, ValueError, KeyError, OSError, RuntimeError, OverflowError, AttributeError):
            return  # cannot be written
        _read(path, options)


def _change(file: h5py.File, reader: Reader) -> None:
    """Replace a part, or an attribute of one, by something odd."""
    names: list[str] = []
    file.visit(names.append)
    if not names:
        return
    name = reader.choice(names)
    part: Any = file[name]
    if len(part.attrs) and reader.byte() % 3 == 0:
        key = reader.choice(sorted(part.attrs))
        part.attrs[key] = reader.choice(("", "m", b"nm", 3, np.arange(3.0), float("nan"), [b"a", b"b"], -1, 1e300))
        return
    odd_part(file, name, reader)


def _read(path: Path, options: ScanOptions) -> None:
    try:
        with open_scan(path, options) as scan:
            assert len(scan) == len(scan.counts) > 0
            assert np.isfinite(scan.positions_m).all()
            for index in (0, -1):
                assert scan.counts[index].dtype.kind in "iu"
    except ScanFileError as error:
        assert error.remedy
