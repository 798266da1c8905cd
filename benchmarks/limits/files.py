"""Broken files."""

from __future__ import annotations

import zipfile
from pathlib import Path

import h5py
import numpy as np

from ptychostream.benchmarks.limits.models import Act, refusal
from ptychostream.ioc.images.reference_file import read_reference
from ptychostream.ioc.scan.route_apart import read_route_apart
from ptychostream.scans.scan_files import ScanOptions
from ptychostream.scans.scan_probe import open_probed

_GIVEN = ScanOptions(energy_ev=9e3, distance_m=1.0, detector_pixel_m=1e-4)


def _opening(path: Path) -> Act:
    def read() -> None:
        with open_probed(path, _GIVEN) as scan:
            scan.counts[0]

    return lambda: refusal(read)


def long_row(folder: Path) -> Act:
    """A CSV of one row."""
    path = folder / "route.csv"
    path.write_text("1," * 10_000_000)
    return lambda: refusal(lambda: read_route_apart(path))


def text_in_route(folder: Path) -> Act:
    """A CSV with a word in its last row."""
    path = folder / "route.csv"
    path.write_text("1.5,2.5\n" * 299_999 + "1,word\n")
    return lambda: refusal(lambda: read_route_apart(path))


def _npz(path: Path, **more: object) -> Path:
    arrays = {"counts": np.ones((4, 8, 8), np.uint16), "positions_m": np.zeros((4, 2))}
    np.savez(path, **arrays, **more)  # type: ignore[arg-type]
    return path


def many_members(folder: Path) -> Act:
    """Many empty members."""
    path = _npz(folder / "many.npz")
    with zipfile.ZipFile(path, "a") as archive:
        for number in range(5000):
            archive.writestr(f"note{number}.npy", b"")
    return _opening(path)


def objects(folder: Path) -> Act:
    """A member that would have to be unpickled."""
    return _opening(_npz(folder / "objects.npz", note=np.array([None, "text"], object)))


def many_groups(folder: Path) -> Act:
    """Many empty groups."""
    path = folder / "groups.h5"
    with h5py.File(path, "w") as file:
        for number in range(20_000):
            file.create_group(f"note{number}")
    return _opening(path)


def huge_announced(folder: Path) -> Act:
    """An array of which nothing was written."""
    path = folder / "huge.h5"
    with h5py.File(path, "w") as file:
        shape = (1 << 10, 1 << 16, 1 << 16)
        file.create_dataset("entry/data/data", shape, np.uint16, chunks=(1, 1024, 1024))
    return _opening(path)


def cut(folder: Path) -> Act:
    """The first half of a file."""
    path = folder / "cut.h5"
    with h5py.File(path, "w") as file:
        file["entry/data/data"] = np.random.default_rng(0).integers(0, 9, (64, 64, 64), np.uint16)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    return _opening(path)


def no_reference(folder: Path) -> Act:
    """An HDF5 file of something else."""
    path = folder / "other.h5"
    with h5py.File(path, "w") as file:
        file["a"] = np.zeros(10)
    return lambda: refusal(lambda: read_reference(str(path)))
