"""Blockfiles, TVIPS, Merlin, EMPAD, zspy and MRC: written by the libraries' own writers or byte by byte.

Which reader gets what wrong is in docs/reference/scan-files.md.
"""

from __future__ import annotations

import importlib
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from layout_samples import COLUMNS, FRAMES, HEIGHT, ROWS, STEP_M, WIDTH, assert_is, patterns, raster, read, refused
from numpy.typing import NDArray

from ptychostream.scans.layouts import extras

GEOMETRY: dict[str, Any] = {"energy_ev": 2e5, "distance_m": 0.2, "detector_pixel_m": 5.5e-5}
RASTER: dict[str, Any] = {"scan_shape": (ROWS, COLUMNS), "scan_step_m": STEP_M}
NM = [step * 1e9 for step in STEP_M]


def signal(cube: NDArray[Any], pattern_units: str = "1/nm", steps: Any = NM) -> dict[str, Any]:
    """What RosettaSciIO's writers take."""
    names = (("y", steps[0], "nm"), ("x", steps[1], "nm"), ("ky", 0.02, pattern_units), ("kx", 0.02, pattern_units))
    return {
        "data": cube,
        "axes": [
            {
                "name": name, "size": size, "scale": scale, "units": units, "offset": 0.0, "navigate": index < 2,
                "index_in_array": index, "is_binned": False, "_type": "UniformDataAxis",
            }
            for index, (size, (name, scale, units)) in enumerate(zip(cube.shape, names, strict=True))
        ],
        "metadata": {
            "General": {"title": "t"}, "Signal": {}, "Acquisition_instrument": {"TEM": {"beam_energy": 200.0}},
        },
        "original_metadata": {}, "attributes": {"_lazy": False}, "learning_results": {}, "package": "",
        "package_version": "", "package_info": {}, "models": {}, "tmp_parameters": {},
    }  # fmt: skip


# Blockfile


def write_blo(path: Path, **header: Any) -> NDArray[Any]:
    """A blockfile by RosettaSciIO's writer. Returns its cube: square patterns of uint8."""
    from rsciio import blockfile

    cube = np.random.default_rng(2).integers(0, 200, (ROWS, COLUMNS, WIDTH, WIDTH)).astype(np.uint8)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        blockfile.file_writer(str(path), signal(cube, "cm"), show_progressbar=False)
        stored = np.memmap(path, mode="r+", dtype=np.dtype(blockfile._api.get_header_dtype_list("<")), shape=(1,))
    for name, value in (
        {"SX": NM[1], "SY": NM[0], "Beam_energy": 200_000, "Camera_length": 2000, "SDP": 18_181} | header
    ).items():
        stored[name] = value
    stored.flush()
    return cube


@pytest.mark.slow
def test_blockfile(tmp_path: Path) -> None:
    cube = write_blo(tmp_path / "a.blo")
    scan = read(tmp_path / "a.blo")
    assert_is(scan, cube.reshape(FRAMES, WIDTH, WIDTH), raster())
    assert (scan.radiation, scan.energy_ev) == ("electron", 200_000)
    assert scan.distance_m == pytest.approx(0.2)
    assert scan.detector_pixel_m == pytest.approx(5.5e-5, rel=1e-4)


@pytest.mark.slow
def test_zeros_of_a_blockfile_are_unknown(tmp_path: Path) -> None:
    cube = write_blo(tmp_path / "a.blo", Beam_energy=0, Camera_length=0, SX=0.0, SY=0.0)
    refused(tmp_path / "a.blo", "no step of the scan", energy_ev=1e5, distance_m=0.1)
    refused(tmp_path / "a.blo", "does not give energy_ev", **RASTER, distance_m=0.1)
    scan = read(tmp_path / "a.blo", **RASTER, energy_ev=1e5, distance_m=0.1)
    assert_is(scan, cube.reshape(FRAMES, WIDTH, WIDTH), raster())


# TVIPS


def write_tvips(path: Path, dtype: str) -> None:
    from rsciio import tvips

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tvips.file_writer(str(path), signal(patterns(dtype=dtype).reshape(ROWS, COLUMNS, HEIGHT, WIDTH)))


def test_tvips(tmp_path: Path) -> None:
    path = tmp_path / "a_000.tvips"
    write_tvips(path, "u2")
    assert_is(read(path, **RASTER, **GEOMETRY), patterns(), raster())
    assert "--scan-shape" in refused(path, "12 patterns, and the file does not say the rows", **GEOMETRY).remedy
    refused(path, "4 rows of 4 are 16 positions, and the file has 12 patterns", scan_shape=(4, 4), scan_step_m=STEP_M)
    refused(path, "does not say the step", scan_shape=(ROWS, COLUMNS), **GEOMETRY)


@pytest.mark.parametrize("dtype", ["f4", "u4"])
def test_tvips_of_32_bit_is_refused(tmp_path: Path, dtype: str) -> None:
    path = tmp_path / "a_000.tvips"
    write_tvips(path, dtype)
    refused(path, "patterns have 32 bits, and the header does not say of which type", **RASTER, **GEOMETRY)


# Merlin


def write_mib(path: Path, frames: NDArray[Any]) -> None:
    """Frames of a single chip as Merlin writes them: a header of 384 bytes and big-endian counts, each."""
    code = {1: "U08", 2: "U16", 4: "U32"}[frames.dtype.itemsize]
    with path.open("wb") as stream:
        for number, frame in enumerate(frames, start=1):
            head = (
                f"MQ1,{number:06d},00384,01,{WIDTH:04d},{HEIGHT:04d},{code},   1x1,01,2026-11-30 12:00:00.000000,"
                f"0.001000,0,0,0,0,0,0,0,MQ1A,2026-11-30T12:00:00.000000000Z,1000000ns,12,"
            )
            stream.write(head.encode().ljust(384))
            stream.write(frame.astype(frame.dtype.newbyteorder(">")).tobytes())


@pytest.mark.parametrize("dtype", ["u1", "u2", "u4"])
def test_merlin_rows_stay_as_they_are_stored(tmp_path: Path, dtype: str) -> None:
    path = tmp_path / "run7_2.mib"
    write_mib(path, patterns(dtype=dtype))
    write_mib(tmp_path / "run7_3.mib", patterns(dtype=dtype))  # a neighbour by number is not of this scan
    scan = read(path, **RASTER, **GEOMETRY)
    assert_is(scan, patterns(dtype=dtype), raster())
    assert scan.said.about("reverse_y")[0].origin == "assumed"


def test_no_scan_shape_of_a_merlin_is_guessed(tmp_path: Path) -> None:
    write_mib(tmp_path / "a.mib", patterns()[:-1])
    refused(tmp_path / "a.mib", "11 patterns, and the file does not say the rows", **GEOMETRY)
    refused(tmp_path / "a.mib", "3 rows of 4 are 12 positions, and the file has 11 patterns", **RASTER, **GEOMETRY)


# EMPAD


def write_empad(folder: Path, cube: NDArray[Any], fov: str) -> Path:
    rows, columns = cube.shape[:2]
    padded = np.zeros((rows, columns, 130, 128), "<f4")
    padded[:, :, :128] = cube
    padded.tofile(folder / f"scan_x{columns}_y{rows}.raw")
    path = folder / "acquisition.xml"
    path.write_text(
        f"<root><raw_file filename='scan_x{columns}_y{rows}.raw'/><pix_x>{columns}</pix_x><pix_y>{rows}</pix_y>"
        f"<scan_parameters mode='acquire'/><iom_measurements><optics><get_full_scan_field_of_view>{fov}"
        "</get_full_scan_field_of_view></optics><calibrated_pixelsize>2e-11</calibrated_pixelsize></iom_measurements></root>"
    )
    return path


def test_empad(tmp_path: Path) -> None:
    cube = np.random.default_rng(0).integers(0, 90, (ROWS, COLUMNS, 128, 128)).astype("f4")
    path = write_empad(tmp_path, cube, f"[{ROWS * 2e-9}, {COLUMNS * 2e-9}]")
    scan = read(path, **GEOMETRY | {"distance_m": None, "detector_pixel_m": None})
    assert_is(scan, cube.reshape(FRAMES, 128, 128), raster() / np.array(STEP_M[::-1]) * 2e-9)
    path = write_empad(tmp_path, cube + 0.25, f"[{ROWS * 2e-9}, {COLUMNS * 2e-9}]")
    refused(path, "is not a count", energy_ev=3e5)


def test_the_scan_of_the_search_is_not_that_of_the_acquisition(tmp_path: Path) -> None:
    """rosettasciio#520: pix_x and pix_y stand twice in the .xml."""
    path = write_empad(tmp_path, np.zeros((ROWS, COLUMNS, 128, 128)), f"[{ROWS * 2e-9}, {COLUMNS * 2e-9}]")
    text = path.read_text()
    path.write_text(text.replace(f"<pix_y>{ROWS}<", "<pix_y>2<"))
    refused(path, "scan_x4_y3.raw, and the .xml says 2 rows of 4", energy_ev=3e5)
    path.write_text(text)
    with (tmp_path / "scan_x4_y3.raw").open("r+b") as stream:
        stream.truncate(130 * 128 * 4 * 11)
    refused(path, "has 732160 bytes, and 3 rows of 4 patterns need 798720|RosettaSciIO cannot read it", energy_ev=3e5)


def test_a_field_of_view_that_is_scaled_is_no_step(tmp_path: Path) -> None:
    """rosettasciio#495: the reported field of view is off by factors."""
    path = write_empad(tmp_path, np.zeros((ROWS, COLUMNS, 128, 128)), f"[{ROWS * 2e-9}, {COLUMNS * 2e-9}]")
    path.write_text(path.read_text().replace("</root>", "<scale_factor>0.72</scale_factor></root>"))
    refused(path, "no step of the scan", energy_ev=3e5)
    assert_is(read(path, energy_ev=3e5, scan_step_m=STEP_M), np.zeros((FRAMES, 128, 128)), raster())


# zspy


def test_zspy(tmp_path: Path) -> None:
    from rsciio import zspy

    path = tmp_path / "a.zspy"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        zspy.file_writer(str(path), signal(patterns().reshape(ROWS, COLUMNS, HEIGHT, WIDTH)))
    scan = read(path)
    assert_is(scan, patterns(), raster())
    assert scan.energy_ev == 200_000


# MRC


def write_mrc(path: Path, data: NDArray[Any], mode: int | None = None) -> None:
    import mrcfile

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with mrcfile.new(path) as file:
            file.set_data(data)
    if mode is not None:
        with path.open("r+b") as stream:
            stream.seek(12)
            stream.write(int(mode).to_bytes(4, "little"))


@pytest.mark.parametrize("dtype", ["i1", "i2", "u2", "f4", ">i2"])
def test_mrc(tmp_path: Path, dtype: str) -> None:
    frames = (patterns() % 100).astype(dtype)
    write_mrc(tmp_path / "a.mrc", frames)
    assert_is(read(tmp_path / "a.mrc", **RASTER, **GEOMETRY), frames, raster())
    refused(tmp_path / "a.mrc", "12 patterns, and the file does not say", **GEOMETRY)


def test_signed_bytes_of_mrc_keep_their_sign(tmp_path: Path) -> None:
    frames = (patterns() % 100 - 3).astype("i1")
    write_mrc(tmp_path / "a.mrc", frames)
    assert read(tmp_path / "a.mrc", **RASTER, **GEOMETRY).counts.min() == -3


def test_mrc_of_another_mode(tmp_path: Path) -> None:
    write_mrc(tmp_path / "a.mrc", patterns().astype("i2"), mode=8)
    refused(tmp_path / "a.mrc", "mrcfile cannot read it|no counts", **RASTER, **GEOMETRY)


# By RosettaSciIO's own writer of .hspy, and plain arrays


def test_hspy_of_rosettasciio(tmp_path: Path) -> None:
    from rsciio import hspy

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        hspy.file_writer(str(tmp_path / "a.hspy"), signal(patterns().reshape(ROWS, COLUMNS, HEIGHT, WIDTH)))
    scan = read(tmp_path / "a.hspy")
    assert_is(scan, patterns(), raster())
    assert (scan.radiation, scan.energy_ev) == ("electron", 200_000)


# What is missing


def test_a_package_that_is_missing_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_mib(tmp_path / "a.mib", patterns())

    found = importlib.import_module

    def absent(module: str, package: str | None = None) -> Any:
        if not module.startswith("rsciio"):
            return found(module, package)
        raise ModuleNotFoundError(f"No module named {module!r}", name=module)

    monkeypatch.setattr(extras.importlib, "import_module", absent)
    error = refused(
        tmp_path / "a.mib", "MIB needs the package rsciio.quantumdetector, which is not installed", **RASTER
    )
    assert "ptychostream[electron]" in error.remedy
    assert HEIGHT != WIDTH


def test_a_file_that_only_has_the_name(tmp_path: Path) -> None:
    for name in ("a.blo", "a_000.tvips", "a.mib", "a.xml"):
        (tmp_path / name).write_bytes(b"nothing of the kind" * 30)
        refused(tmp_path / name, "by its name .*, but not by its content", **RASTER, **GEOMETRY)


def test_files_that_are_cut_short(tmp_path: Path) -> None:
    """RosettaSciIO fills a blockfile with zeros and drops the last line of a MIB."""
    write_blo(tmp_path / "a.blo")
    data = (tmp_path / "a.blo").read_bytes()
    (tmp_path / "a.blo").write_bytes(data[:-100])
    refused(tmp_path / "a.blo", "cut short: 3 × 4 patterns need")


def test_a_scan_rotation_in_the_header(tmp_path: Path) -> None:
    write_blo(tmp_path / "a.blo", Scan_rotation=2500)
    refused(tmp_path / "a.blo", "turned by 25 degrees .Scan_rotation.")
    turned = read(tmp_path / "a.blo", scan_rotation_deg=0.0)
    np.testing.assert_allclose(turned.positions_m, raster(), rtol=1e-9, atol=1e-18)
