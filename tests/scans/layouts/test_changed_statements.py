"""A CXI, DECTRIS or npz file with one statement changed gives the same picture, or a message names the statement.

The same for NeXus stands in `tests/scans/test_what_files_say.py`, for a stream in `tests/frames/test_stream_watch.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from layout_samples import GEOMETRY, STEP_M, patterns, places, read, refused
from test_dectris_layout import write_master

from ptychostream.scans.exports.cxi import write_cxi
from ptychostream.scans.scan import Scan
from ptychostream.statements.units import JOULE_PER_EV

ENERGY_EV, DISTANCE_M, PIXEL_M = (GEOMETRY[name] for name in ("energy_ev", "distance_m", "detector_pixel_m"))
INSTRUMENT = "entry_1/instrument_1"
CAMERA = f"{INSTRUMENT}/detector_1"
WAVE = "entry/instrument/beam/incident_wavelength"
EIGER = "entry/instrument/detector"
SPECIFIC = f"{EIGER}/detectorSpecific"
Change = Callable[[h5py.File], object]


def put(path: str, value: Any, units: str | None = None) -> Change:
    """A value in the place of what stands there, if anything does."""

    def change(file: h5py.File) -> None:
        if path in file:
            del file[path]
        file[path] = value
        if units is not None:
            file[path].attrs["units"] = units

    return change


def drop(path: str) -> Change:
    return lambda file: file.pop(path)


def same(found: Scan, expected: Scan) -> None:
    geometry = ("energy_ev", "distance_m", "detector_pixel_m")
    assert [getattr(found, name) for name in geometry] == pytest.approx([getattr(expected, name) for name in geometry])
    np.testing.assert_allclose(found.positions_m, expected.positions_m, rtol=1e-9)
    np.testing.assert_array_equal(found.counts, expected.counts)
    if expected.bad_pixels is not None:
        np.testing.assert_array_equal(found.bad_pixels, expected.bad_pixels)


CXI: list[tuple[str, Change, str]] = [
    ("energy in keV", put(f"{INSTRUMENT}/beam_1/incident_beam_energy", ENERGY_EV / 1e3, "keV"), ""),
    ("energy without unit", put(f"{INSTRUMENT}/beam_1/incident_beam_energy", ENERGY_EV), ""),
    ("keV called eV", put(f"{INSTRUMENT}/beam_1/incident_beam_energy", ENERGY_EV / 1e3, "eV"), "incident_beam_energy"),
    ("another energy", put(f"{INSTRUMENT}/beam_1/incident_beam_energy", 8e3, "eV"), "incident_beam_energy"),
    ("a ring's energy", put(f"{INSTRUMENT}/source_1/energy", 6e9 * JOULE_PER_EV, "J"), ""),
    ("another source", put(f"{INSTRUMENT}/source_1/energy", 8e3 * JOULE_PER_EV, "J"), "source_1/energy"),
    ("no beam", drop(f"{INSTRUMENT}/beam_1"), ""),
    ("wavelength", put(f"{INSTRUMENT}/beam_1/incident_wavelength", 1e-10, "m"), "incident_wavelength"),
    ("distance in mm", put(f"{CAMERA}/distance", DISTANCE_M * 1e3, "mm"), ""),
    ("distance in volts", put(f"{CAMERA}/distance", DISTANCE_M, "V"), "distance"),
    ("distance of km", put(f"{CAMERA}/distance", DISTANCE_M * 1e3, "m"), "distance"),
    ("no distance", drop(f"{CAMERA}/distance"), "distance"),
    ("pixel in µm", put(f"{CAMERA}/x_pixel_size", PIXEL_M * 1e6, "um"), ""),
    ("pixel of a row", put(f"{CAMERA}/y_pixel_size", PIXEL_M / 2, "m"), "y_pixel_size"),
    ("binning", put(f"{CAMERA}/binning_x", 2), "binning_x"),
    ("centred", put(f"{CAMERA}/is_fft_shifted", 0), ""),
    ("signal bit", put(f"{CAMERA}/mask", np.full(patterns().shape[1:], 0x1000, np.uint32)), ""),
    ("no basis", drop(f"{CAMERA}/basis_vectors"), ""),
    ("basis of the plane only", put(f"{CAMERA}/basis_vectors", np.ones((2, 3))), "basis_vectors"),
]  # fmt: skip


@pytest.mark.parametrize(("change", "named"), [row[1:] for row in CXI], ids=[row[0] for row in CXI])
def test_cxi(change: Change, named: str, tmp_path: Path) -> None:
    path = tmp_path / "scan.cxi"
    write_cxi(path, Scan("s", patterns(), places(), ENERGY_EV, DISTANCE_M, PIXEL_M))
    expected = read(path)
    with h5py.File(path, "r+") as file:
        change(file)
    if named:
        refused(path, named)
    else:
        same(read(path), expected)


DECTRIS: list[tuple[str, Change, str]] = [
    ("wavelength in nm", lambda file: put(WAVE, 0.1 * float(file[WAVE][()]), "nm")(file), ""),
    ("energy beside", put("entry/instrument/beam/incident_energy", 8e3, "eV"), "incident_energy"),
    ("the same energy", put("entry/instrument/beam/incident_energy", 10e3, "eV"), ""),
    ("wavelength in volts", put(WAVE, 1.0, "V"), "incident_wavelength"),
    ("energy that thresholds are set for", put(f"{SPECIFIC}/photon_energy", 8e3, "eV"), ""),
    ("no energy", drop(f"{SPECIFIC}/photon_energy"), ""),
    ("distance in mm", put(f"{EIGER}/detector_distance", 1.8e3, "mm"), ""),
    ("distance called m", put(f"{EIGER}/detector_distance", 1.8e3, "m"), "detector_distance"),
    ("no distance", drop(f"{EIGER}/detector_distance"), "distance"),
    ("pixel of a row", put(f"{EIGER}/y_pixel_size", 55e-6, "m"), "y_pixel_size"),
    ("pixel in µm", put(f"{EIGER}/x_pixel_size", 75.0, "um"), ""),
    ("another cutoff", put(f"{SPECIFIC}/countrate_correction_count_cutoff", np.uint32(9000)), "count_cutoff"),
    ("bit depth", put(f"{EIGER}/bit_depth_image", np.uint16(99)), "bit_depth_image"),
]  # fmt: skip


@pytest.mark.parametrize(("change", "named"), [row[1:] for row in DECTRIS], ids=[row[0] for row in DECTRIS])
def test_dectris(change: Change, named: str, tmp_path: Path) -> None:
    path, options = write_master(tmp_path), {"scan_shape": (3, 4), "scan_step_m": STEP_M}
    expected = read(path, **options)
    with h5py.File(path, "r+") as file:
        change(file)
    if named:
        refused(path, named, **options)
    else:
        same(read(path, **options), expected)


NPZ: list[tuple[str, dict[str, Any], str]] = [
    ("another energy", {"energy_ev": 1.0}, "energy_ev"),
    ("keV", {"energy_ev": 9.0}, "energy_ev"),
    ("mm", {"distance_m": 1500.0}, "distance_m"),
    ("µm", {"detector_pixel_m": 75.0}, "detector_pixel_m"),
    ("two energies", {"energy_ev": np.array([9e3, 8e3])}, "energy_ev"),
    ("the same twice", {"energy_ev": np.array([9e3])}, ""),
    ("not a number", {"distance_m": np.nan}, "distance_m"),
    ("a text", {"energy_ev": "9 keV"}, "energy_ev"),
    ("another particle", {"radiation": "proton"}, "radiation"),
    ("µm for m", {"positions_m": places() * 1e6}, "positions"),
    ("a mask of another shape", {"bad_pixels": np.zeros((2, 2), bool)}, "mask|bad_pixels"),
]


@pytest.mark.parametrize(("changed", "named"), [row[1:] for row in NPZ], ids=[row[0] for row in NPZ])
def test_npz(changed: dict[str, Any], named: str, tmp_path: Path) -> None:
    parts = {"counts": patterns(), "positions_m": places(), **GEOMETRY}
    path = tmp_path / "scan.npz"
    np.savez(path, **parts)
    expected = read(path)
    np.savez(path, **{**parts, **changed})
    if named:
        refused(path, named)
    else:
        same(read(path), expected)
