"""Arrays of MATLAB 7.3, which HDF5 shows with reversed axes: one array, or a folder of one file a pattern."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from layout_samples import COLUMNS, FRAMES, GEOMETRY, ROWS, STEP_M, assert_is, patterns, places, raster, read, refused
from numpy.typing import NDArray

RASTER: dict[str, Any] = {"scan_shape": (ROWS, COLUMNS), "scan_step_m": STEP_M}


def save_mat(path: Path, **variables: NDArray[Any]) -> Path:
    """As MATLAB's `save -v7.3`: a header of 512 bytes, axes reversed, the class as an attribute."""
    with h5py.File(path, "w", userblock_size=512) as file:
        for name, value in variables.items():
            stored = file.create_dataset(name, data=np.asarray(value).T)
            stored.attrs["MATLAB_class"] = np.bytes_("double" if value.dtype.kind == "f" else value.dtype.name)
    with path.open("r+b") as stream:
        stream.write(b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(124) + b"\0\2IM")
    return path


def test_one_array_of_all_patterns(tmp_path: Path) -> None:
    x, y = places().T
    path = save_mat(tmp_path / "scan.mat", dp=patterns().transpose(1, 2, 0), xs=x[:, None], ys=y[None, :])
    assert_is(read(path, x_name="xs", y_name="ys", **GEOMETRY), patterns(), places())


def test_a_raster_of_four_axes(tmp_path: Path) -> None:
    """dp(rows, columns, scan columns, scan rows): the last axis is the slowest in MATLAB's own order."""
    cube = patterns().reshape(ROWS, COLUMNS, *patterns().shape[1:]).transpose(2, 3, 1, 0)
    assert_is(read(save_mat(tmp_path / "cube.mat", dp=cube), **RASTER, **GEOMETRY), patterns(), raster())


def test_an_array_of_h5write_says_nothing_and_is_told(tmp_path: Path) -> None:
    x, y = places().T
    path = tmp_path / "scan.h5"
    with h5py.File(path, "w") as file:
        file["patterns"], file["PositionX"], file["PositionY"] = patterns().transpose(0, 2, 1), x, y
    assert_is(read(path, transpose=True, **GEOMETRY), patterns(), places())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """dp_8.mat … dp_19.mat, so that the order of the names is another than that of the numbers."""
    folder = tmp_path / "dps"
    folder.mkdir()
    for index in range(FRAMES):
        save_mat(folder / f"dp_{index + 8}.mat", dp=patterns()[index])
    (folder / "readme.txt").write_text("1")
    return folder


def test_a_folder_of_one_pattern_a_file(folder: Path, tmp_path: Path) -> None:
    assert_is(read(folder, **RASTER, **GEOMETRY), patterns(), raster())
    assert_is(read(folder, data="dp", **RASTER, **GEOMETRY), patterns(), raster())
    route = tmp_path / "route.csv"
    route.write_text("\n".join(["x,y", *(f"{x!r},{y!r}" for x, y in places().tolist())]))
    scan = read(folder, route=route, **GEOMETRY)
    assert_is(scan, patterns(), places())
    assert scan.scan_id == "dps"


def test_a_folder_that_is_not_whole(folder: Path) -> None:
    refused(folder, "12 files of one pattern each, and nothing says where", **GEOMETRY)
    refused(folder, "12 frames but 10 positions|10 positions", **RASTER | {"scan_shape": (2, 5)}, **GEOMETRY)
    save_mat(folder / "dp_11.mat", dp=patterns()[0][:, :5])
    refused(folder, "dp_11|5, 6", **RASTER, **GEOMETRY)
    (folder / "dp_11.mat").unlink()
    refused(folder, "pattern 11 is missing between 8 and 19", **RASTER, **GEOMETRY)
    save_mat(folder / "other_9.mat", dp=patterns()[0])
    refused(folder, "dp_9.mat and other_9.mat|other_9.mat and dp_9.mat", **RASTER, **GEOMETRY)
