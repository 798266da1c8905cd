"""Files that announce more than any real one are refused before they are read, and read in a child where it matters."""

from __future__ import annotations

import zipfile
from pathlib import Path

import h5py
import numpy as np
import pytest
from scan_samples import a_file

from ptychostream.errors import ScanFileError
from ptychostream.ioc.config.settings import PositionSettings
from ptychostream.ioc.images.reference_file import read_reference
from ptychostream.ioc.scan import position_sources
from ptychostream.ioc.scan.position_sources import PositionSources
from ptychostream.ioc.scan.route_apart import read_route_apart
from ptychostream.positions import route_file
from ptychostream.positions.route_file import read_route
from ptychostream.processes.bounded import Bounds
from ptychostream.scans import scan_probe
from ptychostream.scans.layouts import npz
from ptychostream.scans.scan_files import open_scan
from ptychostream.storage import hdf5_heaps

AMPLE = Bounds(1 << 30, 60.0)


def an_npz(path: Path, **more: np.ndarray) -> Path:
    np.savez(
        path,
        counts=np.ones((4, 8, 8), np.uint16),
        positions_m=np.arange(8.0).reshape(4, 2) * 1e-7,
        energy_ev=9e3,
        distance_m=1.0,
        detector_pixel_m=1e-4,
        **more,
    )
    return path


def refused(path: Path, what: str) -> None:
    with pytest.raises(ScanFileError, match=what), open_scan(path):
        pass


@pytest.mark.slow
def test_an_npz_with_masses_of_members_is_refused_by_its_directory(tmp_path: Path) -> None:
    path = an_npz(tmp_path / "many.npz")
    with open_scan(path) as scan:
        assert len(scan) == 4
    with zipfile.ZipFile(path, "a") as archive:
        for number in range(5000):
            archive.writestr(f"note{number}.npy", b"")
    refused(path, r"5,005 members or more")
    with zipfile.ZipFile(path, "a") as archive:
        archive.comment = b"a comment after the directory"
    refused(path, r"5,005 members or more")
    path.write_bytes(path.read_bytes()[:-60])
    refused(path, "no directory at its end")


def test_the_arrays_of_an_npz_are_bounded_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = an_npz(tmp_path / "a.npz", one=np.zeros(100_000), two=np.zeros(100_000))
    monkeypatch.setattr(npz, "_MAX_MEMBERS_BYTES", 2_000_000)
    with open_scan(path) as scan:
        assert len(scan) == 4
    monkeypatch.setattr(npz, "_MAX_MEMBERS_BYTES", 1_100_000)
    refused(path, "arrays beside the counts take 1 MiB")


def test_a_file_with_masses_of_objects_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = a_file(tmp_path)
    with h5py.File(path, "a") as file:
        for number in range(60):
            file.create_group(f"entry/instrument/NDAttributes/note{number}")
    monkeypatch.setattr(hdf5_heaps, "MAX_OBJECTS", 200)
    with open_scan(path) as scan:
        assert len(scan)
    monkeypatch.setattr(hdf5_heaps, "MAX_OBJECTS", 50)
    refused(path, r"members of /entry/instrument/NDAttributes it has more than 50 objects .*repack")
    with h5py.File(path, "a") as file:
        for number in range(60):
            file.create_group(f"note{number}")
    refused(path, r"members of / it has more than 50 objects")


def test_a_route_is_read_row_by_row_within_limits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "route.csv"
    path.write_text("\n".join(f"{n},{n / 2}" for n in range(50)))
    assert len(read_route(path).x) == 50
    monkeypatch.setattr(route_file, "MAX_POSITIONS", 49)
    with pytest.raises(ScanFileError, match=r"row 50: more than 49 positions"):
        read_route(path)
    path.write_text("1,2\n" + "3," * 6000)
    with pytest.raises(ScanFileError, match=r"row 2: a row of more than 10,000 characters"):
        read_route(path)
    path.write_bytes(b"1,2\n\xff\xfe\n")
    with pytest.raises(ScanFileError, match="neither text nor HDF5"):
        read_route(path)


@pytest.mark.slow
def test_the_ioc_has_a_route_read_in_a_child(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "route.csv"
    path.write_text("id,x,y\n7,1,2\n8,3,nan\n")
    here, apart = read_route(path), read_route_apart(path)
    assert apart.ids is not None
    assert (apart.ids.tolist(), apart.x.tolist()) == (here.ids.tolist() if here.ids is not None else [], [1.0, 3.0])
    np.testing.assert_array_equal(apart.y, here.y)
    with pytest.raises(ScanFileError, match="No such file"):
        read_route_apart(tmp_path / "none.csv")
    path.write_text("1,2\n3\n")
    with pytest.raises(ScanFileError, match=r"row 2: 1 columns instead of 2") as told:
        read_route_apart(path)
    assert told.value.remedy
    with pytest.raises(ScanFileError, match=r"reading it (needs more memory|was not done|crashed|failed)"):
        read_route_apart(path, Bounds(8 << 20, 30.0))
    with pytest.raises(ScanFileError, match=r"reading it was not done within 0\.01 s"):
        read_route_apart(path, Bounds(1 << 30, 0.01))
    asked: list[Path] = []
    monkeypatch.setattr(position_sources, "read_route_apart", lambda given: asked.append(given) or here)
    PositionSources(PositionSettings(source="route", route_file=path))
    assert asked == [path]


@pytest.mark.slow
def test_a_reference_is_read_in_a_child_first(tmp_path: Path) -> None:
    path = tmp_path / "no-reconstruction.h5"
    with h5py.File(path, "w") as file:
        file["a"] = 1
    with pytest.raises(ScanFileError, match="reconstruction"):
        read_reference(str(path))
    with pytest.raises(ScanFileError, match=r"reading it was not done within 0\.01 s"):
        read_reference(str(path), Bounds(1 << 30, 0.01))


@pytest.mark.slow
def test_the_child_of_the_commands_has_a_limit_of_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = a_file(tmp_path)
    scan_probe.probe(path)
    monkeypatch.setattr(scan_probe, "share_of_memory", lambda _: 8 << 20)
    with pytest.raises(ScanFileError, match="reading it"):
        scan_probe.probe(path)
