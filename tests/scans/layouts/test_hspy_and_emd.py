"""4D-STEM files in HDF5: axes by their names and units, never by their order; steps and energies with their units."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from layout_samples import (
    COLUMNS,
    FRAMES,
    HEIGHT,
    ROWS,
    STEP_M,
    WIDTH,
    assert_is,
    change,
    patterns,
    raster,
    read,
    refused,
)
from numpy.typing import NDArray

from ptychostream.imaging.geometry import object_pixel_m, wavelength_m
from ptychostream.scans.scan import Scan

CUBE = patterns().reshape(ROWS, COLUMNS, HEIGHT, WIDTH)
PER_PIXEL = 2e7  # 1/m a pixel of the pattern
OBJECT_PIXEL = 1 / (WIDTH * PER_PIXEL)
Q = PER_PIXEL * 1e-9
SCAN = (("y", STEP_M[0] * 1e9, "nm"), ("x", STEP_M[1] * 1e9, "nm"))
PATTERN = (("ky", Q, "1/nm"), ("kx", Q, "1/nm"))


def write_hspy(path: Path, cube: NDArray[Any] = CUBE, axes: Any = SCAN + PATTERN, kilovolts: float = 200.0) -> Path:
    """As HyperSpy saves a signal."""
    with h5py.File(path, "w") as file:
        signal = file.create_group("Experiments/__unnamed__")
        signal["data"] = cube
        for index, (name, scale, units) in enumerate(axes):
            axis = signal.create_group(f"axis-{index}")
            navigate = name in ("x", "y")
            axis.attrs.update({"name": name, "scale": scale, "units": units, "offset": 0.0, "navigate": navigate})
        instrument = signal.create_group("metadata/Acquisition_instrument/TEM")
        instrument.attrs["beam_energy"] = kilovolts
    return path


def write_emd(path: Path, cube: NDArray[Any], dims: Any, first: int = 1, *, cube_class: str = "") -> Path:
    """An EMD array with its dims, each (name, values, units)."""
    with h5py.File(path, "w") as file:
        group = file.create_group("root/cube")
        group.attrs["emd_group_type"] = 1
        if cube_class:
            group.attrs["python_class"] = cube_class
        group["data"] = cube
        for index, (name, values, units) in enumerate(dims, start=first):
            group[f"dim{index}"] = values
            group[f"dim{index}"].attrs["name"], group[f"dim{index}"].attrs["units"] = name, units
    return path


def assert_each_at_its_place(scan: Scan) -> None:
    """Every frame stands where the raster has it, whatever the order."""
    places = {tuple(np.rint(place / STEP_M[::-1] * 2).astype(int)): index for index, place in enumerate(raster())}
    for place, frame in zip(scan.positions_m, scan.counts, strict=True):
        index = places.pop(tuple(np.rint(place / STEP_M[::-1] * 2).astype(int)))
        np.testing.assert_array_equal(frame, patterns()[index])
    assert not places


def test_a_pixel_that_is_not_square(tmp_path: Path) -> None:
    axes = (*SCAN, ("ky", 2 * Q, "1/nm"), PATTERN[1])
    refused(
        write_hspy(tmp_path / "a.hspy", axes=axes), "axis-3 says 0.02 1/nm a pixel.* axis-2 says 0.04 1/nm|axis-3 says"
    )


def steps(count: int, step: float) -> NDArray[np.float64]:
    return np.arange(count) * step


# HyperSpy


def test_hspy(tmp_path: Path) -> None:
    scan = read(write_hspy(tmp_path / "a.hspy"))
    assert_is(scan, patterns(), raster())
    assert (scan.radiation, scan.energy_ev) == ("electron", 200_000)
    found = object_pixel_m(200_000, scan.distance_m, scan.detector_pixel_m, WIDTH, "electron")
    assert found == pytest.approx(1 / (WIDTH * PER_PIXEL), rel=1e-9)


def test_hspy_in_any_order_of_axes(tmp_path: Path) -> None:
    """abtem by way of `to_hyperspy` and transposed signals: the names say which axis is which."""
    order = (1, 0, 3, 2)
    axes = SCAN + PATTERN
    path = write_hspy(tmp_path / "a.hspy", CUBE.transpose(order), tuple(axes[axis] for axis in order))
    scan = read(path)
    assert_each_at_its_place(scan)


def test_a_step_or_an_energy_of_zero_is_unknown(tmp_path: Path) -> None:
    path = write_hspy(tmp_path / "a.hspy", kilovolts=0.0)
    refused(path, "does not give energy_ev")
    assert read(path, energy_ev=8e4).energy_ev == 8e4
    path = write_hspy(tmp_path / "b.hspy", axes=(("y", 1.0, "<undefined>"), SCAN[1], *PATTERN))
    error = refused(path, "no step of the scan: axis y .* says 1 '<undefined>'")
    assert "--scan-step-m" in error.remedy
    assert_is(read(path, scan_step_m=STEP_M), patterns(), raster())


def test_an_angle_a_pixel(tmp_path: Path) -> None:
    milliradians = wavelength_m(200_000, "electron") * PER_PIXEL * 1e3
    axes = (*SCAN, ("dy", milliradians, "mrad"), ("dx", milliradians, "mrad"))
    scan = read(write_hspy(tmp_path / "a.hspy", axes=axes))
    found = object_pixel_m(200_000, scan.distance_m, scan.detector_pixel_m, WIDTH, "electron")
    assert found == pytest.approx(OBJECT_PIXEL, rel=1e-9)


def test_axes_without_names_are_refused_until_the_user_says(tmp_path: Path) -> None:
    axes = tuple(("", scale, units) for _, scale, units in SCAN + PATTERN)
    path = write_hspy(tmp_path / "a.hspy", axes=axes)
    error = refused(path, "nothing says what 0 is")
    assert "--scan-shape" in error.remedy
    options: dict[str, Any] = {"scan_shape": (ROWS, COLUMNS), "scan_step_m": STEP_M}
    options |= {"energy_ev": 2e5, "radiation": "electron"}
    scan = read(path, data="Experiments/__unnamed__/data", distance_m=1.0, detector_pixel_m=1e-4, **options)
    assert_is(scan, patterns(), raster())


# EMD


NAMED = (
    ("y", steps(ROWS, STEP_M[0] * 1e9), "[n_m]"), ("x", steps(COLUMNS, STEP_M[1] * 1e9), "[n_m]"),
    ("ky", steps(HEIGHT, Q), "[n_m^-1]"), ("kx", steps(WIDTH, Q), "[n_m^-1]"),
)  # fmt: skip


@pytest.mark.parametrize("order", [(0, 1, 2, 3), (3, 2, 1, 0), (1, 0, 3, 2), (2, 3, 0, 1)])
def test_emd_in_any_order_of_axes(tmp_path: Path, order: tuple[int, ...]) -> None:
    """ncempy writes the axes as they are, others reverse them: the names decide."""
    path = write_emd(tmp_path / "a.emd", CUBE.transpose(order), [NAMED[axis] for axis in order])
    scan = read(path, energy_ev=2e5)
    assert scan.counts.shape == (FRAMES, HEIGHT, WIDTH)
    assert_each_at_its_place(scan)


@pytest.mark.parametrize("values", [2, None])
def test_py4dstem(tmp_path: Path, values: int | None) -> None:
    """Rx, Qx count rows in py4DSTEM; a dim holds its first two values or all of them."""
    dims = [
        (name, steps(count, step)[:values], units)
        for name, count, step, units in (
            ("Rx", ROWS, 0.3, "nm"), ("Ry", COLUMNS, 0.3, "nm"),
            ("Qx", HEIGHT, 0.05, "A^-1"), ("Qy", WIDTH, 0.05, "A^-1"),
        )
    ]  # fmt: skip
    path = write_emd(tmp_path / "a.h5", CUBE, dims, first=0, cube_class="DataCube")
    scan = read(path, energy_ev=3e5)
    assert_is(scan, patterns(), raster() / np.array(STEP_M[::-1]) * 0.3e-9)
    pixel = object_pixel_m(3e5, scan.distance_m, scan.detector_pixel_m, WIDTH, "electron")
    assert pixel == pytest.approx(1e-10 / (WIDTH * 0.05), rel=1e-9)


def test_a_calibration_that_turns_the_scan_is_not_passed_over(tmp_path: Path) -> None:
    dims = [(f"R{a}", [0, 0.3], "nm") for a in "xy"] + [(f"Q{a}", [0, 0.05], "A^-1") for a in "xy"]
    path = write_emd(tmp_path / "a.h5", CUBE, dims, first=0, cube_class="DataCube")
    change(path, root__metadatabundle__calibration__QR_rotation_degrees=-12.5)
    error = refused(path, "turned by -12.5 degrees .QR_rotation_degrees.", energy_ev=3e5)
    assert "--scan-rotation-deg" in error.remedy
    assert len(read(path, energy_ev=3e5, scan_rotation_deg=-12.5)) == FRAMES
    change(path, root__metadatabundle__calibration__QR_flip=True)
    refused(path, "pattern is flipped", energy_ev=3e5, scan_rotation_deg=0.0)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({0: ("", "")}, "nothing says what 0 is"),
        ({0: ("dim1", "px")}, "nothing says what 0 is"),
        ({0: ("y", "1/nm")}, "nothing says what 0 is"),  # name and unit do not agree
        ({0: ("x", "nm")}, "0 axes are the|2 axes are|1 rows"),
        ({3: ("ky", "1/nm")}, "axes are the pattern's"),
    ],
)
def test_axes_that_do_not_tell(tmp_path: Path, changed: dict[int, tuple[str, str]], said: str) -> None:
    dims = [
        (changed.get(index, (name, units))[0], values, changed.get(index, (name, units))[1])
        for index, (name, values, units) in enumerate(NAMED)
    ]
    error = refused(write_emd(tmp_path / "a.emd", CUBE, dims), said, energy_ev=2e5)
    assert error.remedy


def test_unequal_steps_of_an_axis(tmp_path: Path) -> None:
    dims = [("y", np.array([0.0, 1.0, 3.0]), "nm"), *NAMED[1:]]
    refused(write_emd(tmp_path / "a.emd", CUBE, dims), "steps of /root/cube/dim1 are unequal, 1 to 2", energy_ev=2e5)


def test_several_cubes(tmp_path: Path) -> None:
    path = write_emd(tmp_path / "a.emd", CUBE, NAMED)
    with h5py.File(path, "r+") as file:
        file.copy("root/cube", "root/depth2")
    error = refused(path, "EMD with 2 arrays", energy_ev=2e5)
    assert "/root/depth2/data" in error.remedy
    assert_is(read(path, data="root/depth2/data", energy_ev=2e5), patterns(), raster())
