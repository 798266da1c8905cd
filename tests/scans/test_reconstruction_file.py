"""Reconstruction files: read back exactly, written whole or not at all."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import h5py
import numpy as np
import pytest

from ptychostream.errors import ScanFileError
from ptychostream.scans.reconstruction_file import read_reconstruction, write_reconstruction
from ptychostream.scans.scan import Reconstruction
from ptychostream.storage.atomic import atomic_path, write_bytes_atomic


def make(size: int = 40) -> Reconstruction:
    random = np.random.default_rng(0)
    complex_object = random.normal(size=(size, size + 5)) + 1j * random.normal(size=(size, size + 5))
    return Reconstruction(
        object=complex_object.astype(np.complex64),
        probe=random.normal(size=(2, 16, 16)).astype(np.complex64),
        origin_m=(-1.1e-6, 2.3e-7),
        pixel_m=15.85e-9,
        positions_m=random.normal(size=(9, 2)) * 1e-6,
        errors=np.geomspace(0.1, 0.02, 7),
        coverage=random.random((size, size + 5)).astype(np.float32),
        scan_id="scan_7 µ",
        engine="ePIE",
        provenance={"options": {"iterations": 30}, "seconds": np.float64(1.5), "file": Path("scan.h5"), "none": None},
    )


def test_round_trip_is_exact(tmp_path: Path) -> None:
    written = make()
    write_reconstruction(tmp_path / "a" / "r.h5", written)
    read = read_reconstruction(tmp_path / "a" / "r.h5")
    for name in ("object", "probe", "positions_m", "errors", "coverage"):
        assert getattr(read, name).dtype == getattr(written, name).dtype
        np.testing.assert_array_equal(getattr(read, name), getattr(written, name))
    for name in ("origin_m", "pixel_m", "scan_id", "engine", "r_factor"):
        assert getattr(read, name) == getattr(written, name)
    assert read.provenance == {"options": {"iterations": 30}, "seconds": 1.5, "file": "scan.h5", "none": None}
    np.testing.assert_array_equal(read.phase_image().phase, written.phase_image().phase)


def test_the_frames_own_r_factors_are_kept_and_checked(tmp_path: Path) -> None:
    written = make()
    assert read_back(tmp_path, written).residuals is None
    written.residuals = np.linspace(0.01, 0.2, 9, dtype=np.float32)
    np.testing.assert_array_equal(read_back(tmp_path, written).residuals, written.residuals)
    written.residuals = written.residuals[:5]
    with pytest.raises(ScanFileError, match="residual"):
        read_back(tmp_path, written)


def read_back(folder: Path, written: Reconstruction) -> Reconstruction:
    write_reconstruction(folder / "r.h5", written)
    return read_reconstruction(folder / "r.h5")


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "r.h5"
    write_reconstruction(path, make())
    before = path.read_bytes()
    broken = make()
    broken.provenance = {"engine": object()}
    with pytest.raises(TypeError, match="cannot be stored as JSON"):
        write_reconstruction(path, broken)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.slow
def test_a_full_disk_is_told_and_leaves_nothing(tmp_path: Path) -> None:
    script = """
        import resource, sys
        sys.path.insert(0, sys.argv[2])
        from test_reconstruction_file import make
        from ptychostream.errors import ScanFileError
        from ptychostream.scans.reconstruction_file import write_reconstruction
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
        try:
            write_reconstruction(sys.argv[1], make(600))
        except ScanFileError as error:
            print(error)
    """
    path = tmp_path / "r.h5"
    command = [sys.executable, "-c", textwrap.dedent(script), str(path), str(Path(__file__).parent)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done
    assert "r.h5: cannot be written: File too large" in done.stdout, done
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("content", "match"),
    [(None, "no such file"), (b"", "not a readable"), (b"\x89HDF\r\n\x1a\n" + b"\0" * 90, "not a readable")],
)
def test_what_is_no_hdf5(tmp_path: Path, content: bytes | None, match: str) -> None:
    path = tmp_path / "r.h5"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ScanFileError, match=match) as caught:
        read_reconstruction(path)
    assert "r.h5" in str(caught.value)


def test_files_that_are_wrong_inside(tmp_path: Path) -> None:
    path = tmp_path / "r.h5"
    with h5py.File(path, "w") as file:
        file["entry/object"] = 1
    with pytest.raises(ScanFileError, match="HDF5, but not a reconstruction"):
        read_reconstruction(path)
    write_reconstruction(path, make())
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(ScanFileError, match="truncated"):
        read_reconstruction(path)
    path.write_bytes(data)
    with h5py.File(path, "r+") as file:
        file.attrs["file_version"] = 99
    with pytest.raises(ScanFileError, match="version 99"):
        read_reconstruction(path)
    path.write_bytes(data)
    with h5py.File(path, "r+") as file:
        del file["entry/probe"]
    with pytest.raises(ScanFileError, match="probe"):
        read_reconstruction(path)
    with h5py.File(path, "r+") as file:
        file["entry/probe"] = np.zeros(3)
    with pytest.raises(ScanFileError, match="probe is float64 with 1 dimensions"):
        read_reconstruction(path)


def test_atomic_files_appear_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "new" / "report.json"
    write_bytes_atomic(path, b"one")
    with pytest.raises(RuntimeError, match="interrupted"), atomic_path(path) as temporary:
        assert temporary.suffix == ".json"
        temporary.write_bytes(b"half")
        raise RuntimeError("interrupted")
    assert path.read_bytes() == b"one"
    with atomic_path(path) as first, atomic_path(path) as second:
        first.write_bytes(b"two")
        second.write_bytes(b"three")
        assert path.read_bytes() == b"one"
    assert path.read_bytes() == b"two"
    assert list(path.parent.iterdir()) == [path]
    with pytest.raises(FileNotFoundError), atomic_path(path):
        pass


def test_a_file_is_opened_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_reconstruction(tmp_path / "r.h5", make())
    opened, real = [], h5py.File.__init__

    def note(file: h5py.File, *arguments: object, **named: object) -> None:
        opened.extend(one for one in arguments[:1] if isinstance(one, str | Path))  # else: a file that is open already
        real(file, *arguments, **named)

    monkeypatch.setattr(h5py.File, "__init__", note)
    read_reconstruction(tmp_path / "r.h5")
    assert len(opened) == 1
