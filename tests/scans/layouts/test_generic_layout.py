"""Any HDF5 file: patterns and positions by name, axes beyond three, and what is not clear is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import h5py
import numpy as np
import pytest
from layout_samples import (
    COLUMNS,
    FRAMES,
    GEOMETRY,
    HEIGHT,
    ROWS,
    STEP_M,
    WIDTH,
    assert_is,
    change,
    patterns,
    places,
    raster,
    read,
    refused,
    write,
)

from ptychostream.errors import ScanFileError
from ptychostream.positions.positions import AxisConfig

RASTER = {"scan_shape": (ROWS, COLUMNS), "scan_step_m": STEP_M}


@pytest.fixture
def foreign(tmp_path: Path) -> Path:
    x, y = places().T
    return write(tmp_path / "foreign.h5", frames__raw=patterns(), motors__sx=x * 1e6, motors__sy=y * 1e9)


def test_patterns_and_columns_by_path_by_name_and_by_column_of_a_table(foreign: Path) -> None:
    with h5py.File(foreign, "r+") as file:
        file["motors/sx"].attrs["units"], file["motors/sy"].attrs["units"] = "um", "nanometers"
    for names in ({"x_name": "motors/sx", "y_name": "/motors/sy"}, {"x_name": "sx", "y_name": "sy"}):
        assert_is(read(foreign, data="frames/raw", **names, **GEOMETRY), patterns(), places())
    assert_is(read(foreign, x_name="sx", y_name="sy", **GEOMETRY), patterns(), places())  # the only patterns
    change(foreign, motors__sx=None, motors__sy=None, table=np.column_stack([np.arange(FRAMES), places()[:, ::-1]]))
    assert_is(read(foreign, x_name="table:2", y_name="table:1", **GEOMETRY), patterns(), places())
    refused(foreign, "no column 3", x_name="table:3", y_name="table:1", **GEOMETRY)


def test_columns_of_one_axis_more_and_of_a_raster(foreign: Path) -> None:
    x, y = places().T
    for shape in ((FRAMES, 1), (1, FRAMES), (ROWS, COLUMNS)):
        change(foreign, motors__sx=x.reshape(shape), motors__sy=y.reshape(shape))
        assert_is(read(foreign, x_name="sx", y_name="sy", **GEOMETRY), patterns(), places())


def test_what_the_file_lacks_is_named(foreign: Path) -> None:
    error = refused(foreign, "no positions: there is no PositionX and PositionY", **GEOMETRY)
    assert "/motors/sx" in error.remedy
    assert "--scan-step-m" in error.remedy
    error = refused(foreign, "no no/such", data="no/such", **GEOMETRY)
    assert f"/frames/raw ({FRAMES}, {HEIGHT}, {WIDTH})" in error.remedy
    refused(foreign, "frames is a group", data="frames", **GEOMETRY)
    change(foreign, motors__sx=np.zeros(FRAMES - 1))
    refused(foreign, "sx has 11 values but sy 12", x_name="sx", y_name="sy", **GEOMETRY)
    change(foreign, other__sx=np.zeros(FRAMES))
    refused(foreign, "2 data sets are called sx: /motors/sx, /other/sx", x_name="sx", y_name="sy", **GEOMETRY)


def test_two_arrays_of_patterns_are_no_choice_of_ours(foreign: Path) -> None:
    change(foreign, frames__dark=patterns(2))
    error = refused(foreign, "2 arrays that may be patterns", x_name="sx", y_name="sy", **GEOMETRY)
    assert "/frames/dark" in error.remedy
    assert "/frames/raw" in error.remedy


def test_a_hard_link_is_no_second_array(foreign: Path) -> None:
    with h5py.File(foreign, "r+") as file:
        file["again"], file["motors/again"] = file["frames/raw"], h5py.SoftLink("/frames")
    assert_is(read(foreign, **RASTER, **GEOMETRY), patterns(), raster())


def test_data_exchange_and_the_attributes_that_a_layout_places(tmp_path: Path) -> None:
    """DataExchange, and NDFileHDF5 with an XML layout that places the attributes as data sets."""
    x, y = places().T
    path = write(
        tmp_path / "exchange.h5",
        exchange__data=patterns(), exchange__data_dark=patterns(1), process__scan__PositionX=x,
        process__scan__PositionY=y, process__NDArrayUniqueId=np.arange(7, 7 + FRAMES),
        measurement__instrument__monochromator__energy=8.5,
    )  # fmt: skip
    with h5py.File(path, "r+") as file:
        file["measurement/instrument/monochromator/energy"].attrs["units"] = "keV"
    scan = read(path, **GEOMETRY | {"energy_ev": None})
    assert_is(scan, patterns(), places())
    assert scan.energy_ev == pytest.approx(8500)
    assert scan.frame_ids is not None
    assert scan.frame_ids.tolist() == list(range(7, 7 + FRAMES))


def test_an_attribute_that_a_layout_renames_is_found_by_its_own_name(tmp_path: Path) -> None:
    """ADCore#65: <dataset name="aequatorial_angle" source="ndattribute" ndattribute="sa"/>."""
    x, y = places().T
    path = write(tmp_path / "a.h5", entry__data__data=patterns(), entry__sample__across=x, entry__sample__up=y)
    with h5py.File(path, "r+") as file:
        file["entry/sample/across"].attrs["NDAttrName"], file["entry/sample/up"].attrs["NDAttrName"] = b"sx", b"sy"
    assert_is(read(path, x_name="sx", y_name="sy", **GEOMETRY), patterns(), places())


def test_the_smallest_layouts(tmp_path: Path) -> None:
    for name in ("data", "entry__data", "entry__data__data", "images"):
        path = write(tmp_path / "small.h5", **{name: patterns()}, PositionX=places()[:, 0], PositionY=places()[:, 1])
        assert_is(read(path, **GEOMETRY), patterns(), places())


# Axes


def test_extra_dimensions_of_area_detector(tmp_path: Path) -> None:
    x, y = places().T
    path = write(
        tmp_path / "extra.h5",
        entry__data__data=patterns().reshape(ROWS, COLUMNS, HEIGHT, WIDTH),
        entry__instrument__NDAttributes__PositionX=x.reshape(ROWS, COLUMNS),
        entry__instrument__NDAttributes__PositionY=y.reshape(ROWS, COLUMNS),
        entry__instrument__NDAttributes__NDArrayUniqueId=np.arange(FRAMES).reshape(ROWS, COLUMNS),
    )
    scan = read(path, **GEOMETRY)
    assert_is(scan, patterns(), places())
    assert scan.frame_ids is not None
    assert scan.frame_ids.tolist() == list(range(FRAMES))
    for name in ("PositionX", "PositionY"):
        change(path, **{f"entry__instrument__NDAttributes__{name}": places()[:, 0]})
    assert len(read(path, **GEOMETRY)) == FRAMES


def test_a_raster_by_its_shape_and_step(tmp_path: Path) -> None:
    path = write(tmp_path / "raster.h5", cube=patterns().reshape(ROWS, COLUMNS, HEIGHT, WIDTH))
    assert_is(read(path, **RASTER, **GEOMETRY), patterns(), raster())
    turned = read(path, **RASTER, scan_rotation_deg=90.0, **GEOMETRY).positions_m
    np.testing.assert_allclose(turned, np.stack([-raster()[:, 1], raster()[:, 0]], axis=1), atol=1e-18)
    error = refused(path, "4 rows of 3, but /cube has shape", **RASTER | {"scan_shape": (COLUMNS, ROWS)}, **GEOMETRY)
    assert "--scan-shape" in error.remedy
    refused(path, "no positions", scan_shape=(ROWS, COLUMNS), **GEOMETRY)
    change(path, cube=patterns())
    assert_is(read(path, **RASTER, **GEOMETRY), patterns(), raster())
    refused(path, "2 rows of 5, but /cube has shape", **RASTER | {"scan_shape": (2, 5)}, **GEOMETRY)


def test_a_threshold_is_never_chosen_silently(tmp_path: Path) -> None:
    x, y = places().T
    thresholds = np.stack([patterns(), patterns() + 1000], axis=1)
    path = write(tmp_path / "two.h5", cube=thresholds, PositionX=x, PositionY=y)
    error = refused(path, "12 positions, so nothing says which axes are the scan", **GEOMETRY)
    assert "--pick 1=K (of 2)" in error.remedy
    for index in range(2):
        assert_is(read(path, pick=((1, index),), **GEOMETRY), thresholds[:, index], places())
    refused(path, "2 elements, so there is no element 2", pick=((1, 2),), **GEOMETRY)
    refused(path, "no axis 2 to choose from", pick=((2, 0),), **GEOMETRY)
    change(path, cube=np.moveaxis(thresholds, 1, 0))
    assert_is(read(path, pick=((0, 1),), **GEOMETRY), thresholds[:, 1], places())
    change(path, cube=thresholds.reshape(ROWS, COLUMNS, 2, HEIGHT, WIDTH))
    assert_is(read(path, pick=((2, 1),), **GEOMETRY), thresholds[:, 1], places())
    change(path, cube=thresholds[:, :1])
    assert_is(read(path, **GEOMETRY), patterns(), places())


def test_transposed_patterns(tmp_path: Path) -> None:
    x, y = places().T
    path = write(tmp_path / "turned.h5", cube=patterns().transpose(0, 2, 1), PositionX=x, PositionY=y)
    assert_is(read(path, transpose=True, **GEOMETRY), patterns(), places())
    assert read(path, **GEOMETRY).counts.shape == (FRAMES, WIDTH, HEIGHT)


def test_single_frames_and_slices_of_more_axes(tmp_path: Path) -> None:
    from ptychostream.scans.scan_files import ScanOptions, open_scan

    path = write(tmp_path / "raster.h5", cube=patterns().reshape(ROWS, COLUMNS, HEIGHT, WIDTH))
    with open_scan(path, ScanOptions(**RASTER, **GEOMETRY)) as scan:
        for key in (0, 5, -1, slice(2, 9), slice(1, 12, 3), slice(9, 2, -2), slice(5, 5)):
            np.testing.assert_array_equal(scan.counts[key], patterns()[key])


# Routes and links


def test_columns_of_a_route_by_name(foreign: Path, tmp_path: Path) -> None:
    x, y = places().T
    route = write(tmp_path / "route.h5", enc__a=y[:, None] * 1e6, enc__b=x[:, None] * 1e6)
    um = AxisConfig(unit="um")
    assert_is(read(foreign, route=route, route_columns=("enc/b", "enc/a"), axes=um, **GEOMETRY), patterns(), places())
    table = tmp_path / "route.csv"
    rows = [f"{row[1] * 1e6!r};{row[0] * 1e6!r};7" for row in places().tolist()]
    table.write_text("\n".join(["Stage_Y;Stage_X;x", *rows]))
    options = {"route": table, "axes": um, **GEOMETRY}
    assert_is(read(foreign, route_columns=("stage_x", "Stage_Y"), **options), patterns(), places())
    with pytest.raises(ScanFileError, match=r"route\.csv, row 1: no column Stage_Z among Stage_Y, Stage_X, x"):
        read(foreign, route_columns=("Stage_Z", "Stage_Y"), **options)


def test_a_link_to_a_file_that_is_away(tmp_path: Path) -> None:
    path = tmp_path / "master.h5"
    with h5py.File(path, "w") as file:
        file["entry/data/data"] = h5py.ExternalLink("frames_of_7.h5", "/entry/data/data")
    for options in ({}, {"data": "entry/data/data"}):
        error = refused(path, "leads to the file frames_of_7.h5, which is not there", **options, **GEOMETRY)
        assert "copy it beside this file" in error.remedy
    write(tmp_path / "frames_of_7.h5", elsewhere=patterns())
    refused(path, "leads to /entry/data/data in frames_of_7.h5, which cannot be read there", **GEOMETRY)
    change(tmp_path / "frames_of_7.h5", entry__data__data=patterns())
    assert_is(read(path, **RASTER, **GEOMETRY), patterns(), raster())


def test_a_soft_link_to_nothing(tmp_path: Path) -> None:
    path = tmp_path / "soft.h5"
    with h5py.File(path, "w") as file:
        file["data"] = h5py.SoftLink("/raw/frames")
    refused(path, "/data leads to /raw/frames, which is not in the file", **GEOMETRY)


@pytest.mark.parametrize("order", ["C", "F"])
def test_a_plain_array_of_numpy(tmp_path: Path, order: Literal["C", "F"]) -> None:
    path = tmp_path / "cube.npy"
    np.save(path, np.asarray(patterns().reshape(ROWS, COLUMNS, HEIGHT, WIDTH), order=order))
    scan = read(path, **RASTER, **GEOMETRY)
    assert_is(scan, patterns(), raster())
    assert scan.radiation == "photon"
    refused(path, "12 patterns, and the file does not say the rows", **GEOMETRY)
