"""A file that says one thing in two places, or in a form that nobody expects: it agrees, or it is refused by name.

The cases are those of docs/reference/what-files-say.md, "Two places".
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import hdf5plugin
import numpy as np
import pytest

from ptychostream.errors import ScanFileError
from ptychostream.ioc.scan.route_apart import read_route_apart
from ptychostream.positions.positions import AxisConfig, RoutePositions
from ptychostream.scans.scan import Scan
from ptychostream.scans.scan_files import ScanOptions, open_scan
from ptychostream.scans.scan_ids import continued
from ptychostream.scans.scan_writer import write_scan
from ptychostream.statements.units import JOULE_PER_EV

FRAMES, SIZE = 24, 16
ENERGY_EV, DISTANCE_M, PIXEL_M = 9_700.0, 1.9, 75e-6
ATTRIBUTES, DETECTOR = "entry/instrument/NDAttributes", "entry/instrument/detector"
BEAM, CAMERA = "entry/instrument/beam", "entry_1/instrument_1/detector_1"
PLACES = np.random.default_rng(8).uniform(-2e-6, 2e-6, (FRAMES, 2))
COUNTS = np.random.default_rng(9).poisson(6, (FRAMES, SIZE, SIZE)).astype(np.uint16)
OTHERS = COUNTS[::-1].copy()

Change = Callable[[h5py.File], Any]


def nexus(folder: Path, *changes: Change, **scan: Any) -> Path:
    path = folder / "scan.h5"
    write_scan(path, Scan("s7", COUNTS, PLACES, ENERGY_EV, DISTANCE_M, PIXEL_M, **scan))
    return changed(path, *changes)


def cxi(folder: Path, *changes: Change) -> Path:
    path = folder / "scan.cxi"
    with h5py.File(path, "w") as file:
        file["entry_1/data_1/data"] = COUNTS
        camera = file.create_group(CAMERA)
        camera["distance"], camera["x_pixel_size"], camera["y_pixel_size"] = DISTANCE_M, PIXEL_M, PIXEL_M
        file["entry_1/instrument_1/source_1/energy"] = ENERGY_EV * JOULE_PER_EV
        file["entry_1/sample_1/geometry_1/translation"] = np.pad(PLACES, ((0, 0), (0, 1)))
    return changed(path, *changes)


def changed(path: Path, *changes: Change) -> Path:
    with h5py.File(path, "r+") as file:
        for change in changes:
            change(file)
    return path


def put(name: str, value: Any, **attributes: Any) -> Change:
    def change(file: h5py.File) -> None:
        if file.get(name, getlink=True) is not None:
            del file[name]
        file[name] = value
        file[name].attrs.update(attributes)

    return change


def says(name: str, **attributes: Any) -> Change:
    return lambda file: file[name].attrs.update(attributes)


def both(first: Change, second: Change) -> Change:
    return lambda file: (first(file), second(file))


def columns(factor: float, **attributes: Any) -> list[Change]:
    """Positions in another unit than metres."""
    return [
        put(f"{ATTRIBUTES}/Position{axis}", PLACES[:, index] * factor, **attributes) for index, axis in enumerate("XY")
    ]


def opened(path: Path, **options: Any) -> Scan:
    with open_scan(path, ScanOptions(**options)) as scan:
        scan.counts = np.asarray(scan.counts)
        return scan


def refused(path: Path, *words: str, **options: Any) -> None:
    with pytest.raises(ScanFileError) as caught:
        opened(path, **options)
    for word in words:
        assert word in str(caught.value), (word, str(caught.value))
    assert caught.value.remedy


# Whoever chose the patterns, the layout or `--data`, the same is read beside them


def test_the_same_is_said_of_patterns_that_the_user_names(tmp_path: Path) -> None:
    """The binning of a file that was opened with --data was not read: an object pixel of twice the size."""
    path = nexus(
        tmp_path,
        says("entry/data/data", NDArrayDimBinning=np.array([2, 2]), NDArrayDimReverse=np.array([1, 0])),
        put("entry/instrument/source/probe", "electron"),
        put(f"{BEAM}/incident_energy", 80.0, units="kV"),
    )
    for options in ({}, {"data": "entry/data/data"}, {"data": f"/{DETECTOR}/data"}):
        scan = opened(path, **options)
        assert (scan.detector_pixel_m, scan.radiation, scan.energy_ev) == (2 * PIXEL_M, "electron", 80e3)
        assert (scan.said.value("reverse_x"), scan.scan_id) == (True, "s7")
    changed(path, put("entry/instrument/monochromator/energy", 60.0, units="kV"))
    refused(path, "incident_energy says 80 kV", "monochromator/energy says 60 kV", data="entry/data/data")


def test_a_detector_has_its_own_geometry(tmp_path: Path) -> None:
    second = "entry/instrument/second"
    path = nexus(
        tmp_path,
        put(f"{second}/data", OTHERS),
        put(f"{second}/distance", 2 * DISTANCE_M),
        put(f"{second}/x_pixel_size", 55e-6),
    )
    np.testing.assert_array_equal(opened(path).counts, COUNTS)  # which `data` is, says its `signal`
    scan = opened(path, data=f"{second}/data")
    np.testing.assert_array_equal(scan.counts, OTHERS)
    assert (scan.distance_m, scan.detector_pixel_m) == (2 * DISTANCE_M, 55e-6)
    changed(path, lambda file: file.pop("entry/data"))
    refused(path, f"/{second}/data", f"/{DETECTOR}/data", "--data")


# Two places for the patterns


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (put("entry/data/data", COUNTS[:, :8, :8].copy()), f"/{DETECTOR}/data (24, 16, 16)"),
        (put("entry/data/more", OTHERS), ""),
        (both(put("entry/data/more", OTHERS), says("entry/data", signal="more")), "/entry/data/more"),
        (both(put("entry2/data/data", OTHERS), says("/", default="entry2")), "`default` names entry2"),
        (both(put("entry2/data/data", OTHERS), lambda file: file.attrs.pop("default")), "entry2/data/data"),
        (put("entry2/data/data", OTHERS), ""),  # the file's `default` is `entry`
    ],
)  # fmt: skip
def test_other_patterns_in_a_nexus_file(change: Change, named: str, tmp_path: Path) -> None:
    path = nexus(tmp_path, change)
    if named:
        refused(path, named, "/entry/data/data", "--data")
    else:
        np.testing.assert_array_equal(opened(path).counts, COUNTS)


def test_an_entry_that_the_user_names_has_its_own_geometry(tmp_path: Path) -> None:
    path = nexus(
        tmp_path,
        put("entry2/data/data", OTHERS),
        put("entry2/instrument/beam/incident_energy", 8e3),
        put("entry2/instrument/detector/distance", 0.7),
        put("entry2/instrument/detector/x_pixel_size", 55e-6),
        put("entry2/positions", PLACES * 1e6, units="um"),
        says("/", default="entry2"),
    )
    scan = opened(path, data="entry2/data/data")
    assert (scan.energy_ev, scan.distance_m, scan.detector_pixel_m) == (8e3, 0.7, 55e-6)


@pytest.mark.parametrize("place", [f"{CAMERA}/data", "entry_2/data_1/data", "entry_1/data_2/data"])
def test_other_patterns_in_a_cxi_file(place: str, tmp_path: Path) -> None:
    refused(cxi(tmp_path, put(place, OTHERS)), f"/{place} (24, 16, 16)", "/entry_1/data_1/data", "--data")
    np.testing.assert_array_equal(opened(cxi(tmp_path, put(place, COUNTS))).counts, COUNTS)  # a copy


def test_the_second_data_of_a_cxi_file_by_name(tmp_path: Path) -> None:
    second = "entry_1/instrument_1/detector_2"
    path = cxi(
        tmp_path,
        put("entry_1/data_2/data", OTHERS),
        put(f"{second}/distance", 0.6),
        put(f"{second}/x_pixel_size", 55e-6),
        put(f"{second}/y_pixel_size", 55e-6),
    )
    scan = opened(path, data="entry_1/data_2/data")
    np.testing.assert_array_equal(scan.counts, OTHERS)
    np.testing.assert_allclose(scan.positions_m, PLACES)
    assert (scan.distance_m, scan.detector_pixel_m) == (0.6, 55e-6)


# Two places for the positions


@pytest.mark.parametrize(
    ("name", "value", "units"),
    [
        (f"{DETECTOR}/NDAttributes/PositionX", PLACES[:, 0] * 2, "m"),
        ("entry/positions", PLACES[::-1].copy(), "m"),
        ("entry/positions", PLACES * 1e6, "nm"),
    ],
)
def test_positions_in_two_places_of_a_nexus_file(name: str, value: Any, units: str, tmp_path: Path) -> None:
    path = nexus(tmp_path, put(name, value, units=units))
    refused(path, f"/{ATTRIBUTES}/PositionX", f"/{name}", "--x-name")
    chosen = {"x_name": f"{ATTRIBUTES}/PositionX", "y_name": f"{ATTRIBUTES}/PositionY"}
    np.testing.assert_allclose(opened(path, **chosen).positions_m, PLACES)
    changed(path, put("entry/positions", PLACES * 1e6, units="um"), put(f"{DETECTOR}/NDAttributes/Other", [1.0]))
    if name == "entry/positions":
        np.testing.assert_allclose(opened(path).positions_m, PLACES)


def test_a_table_of_positions_with_a_unit_for_each_column(tmp_path: Path) -> None:
    path = nexus(tmp_path, put("table", PLACES * [1e3, 1e6], units=np.array([b"mm", b"um"])))
    np.testing.assert_allclose(opened(path, x_name="table:0", y_name="table:1").positions_m, PLACES)
    changed(path, put("table", PLACES * 1e3, units="mm", unit="um"))
    refused(path, "/table says that it is in mm and in um", x_name="table:0", y_name="table:1")


def test_a_route_file_says_its_units(tmp_path: Path) -> None:
    """`units` of x and y in a route of HDF5 were passed over, by files and live: metres, or whatever was configured."""
    path, route = nexus(tmp_path), tmp_path / "route.h5"
    with h5py.File(route, "w") as file:
        file["x"], file["y"] = PLACES[:, 0] * 1e3, PLACES[:, 1] * 1e6
        file["x"].attrs["units"], file["y"].attrs["units"] = "mm", b"\xc2\xb5m"
    np.testing.assert_allclose(opened(path, route=route).positions_m, PLACES)
    with pytest.raises(ScanFileError, match="x says that its unit is mm, and um is configured"):
        RoutePositions(read_route_apart(route), AxisConfig(unit="um"))
    given = opened(path, route=route, axes=AxisConfig(unit="um")).positions_m
    np.testing.assert_allclose(given, PLACES * [1e-3, 1.0])  # what the user gives replaces what the file says
    changed(route, lambda file: file["y"].attrs.pop("units"))
    refused(path, "x of the route has a unit, and y has none", route=route)
    changed(route, lambda file: file["x"].attrs.__setitem__("units", "um"), put("y", PLACES[:, 1] * 1e6, units="um"))
    RoutePositions(read_route_apart(route), AxisConfig(unit="um"))


def test_two_translations_of_a_cxi_file(tmp_path: Path) -> None:
    path = cxi(tmp_path, put("entry_1/data_1/translation", np.pad(3 * PLACES, ((0, 0), (0, 1)))))
    refused(path, "/entry_1/data_1/translation", "/entry_1/sample_1/geometry_1/translation", "do not agree")


# Statements in a form that nobody expects


@pytest.mark.parametrize(
    ("unit", "per_metre"),
    [
        ("A\u030angstr\u00f6m", 1e10),
        ("\u212b", 1e10),
        ("A\u030a", 1e10),
        ("\u00b5m", 1e6),
        ("\u03bcm", 1e6),
        (b"\xb5m", 1e6),
        ("[um]", 1e6),
        ("Micrometre", 1e6),
    ],
)
def test_a_unit_in_each_of_its_codings(unit: str | bytes, per_metre: float, tmp_path: Path) -> None:
    np.testing.assert_allclose(opened(nexus(tmp_path, *columns(per_metre, units=unit))).positions_m, PLACES)


@pytest.mark.parametrize("name", ["unit", "Units"])
def test_a_unit_under_another_attribute(name: str, tmp_path: Path) -> None:
    np.testing.assert_allclose(opened(nexus(tmp_path, *columns(1e6, **{name: "um"}))).positions_m, PLACES)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (says("entry/data/data", NDArrayDimBinning=np.array([2])), "NDArrayDimBinning"),
        (says("entry/data/data", NDArrayDimBinning="2,2"), "NDArrayDimBinning"),
        (says("entry/data/data", NDArrayDimBinning=np.array([1.5, 1.5])), "whole numbers"),
        (put(f"{ATTRIBUTES}/BinX", np.array([b"2x2"] * FRAMES)), "BinX is the text '2x2'"),
        (put(f"{ATTRIBUTES}/ReverseX", np.array([b"left"] * FRAMES)), "ReverseX is the text 'left'"),
        (put(f"{ATTRIBUTES}/NDArrayUniqueId", np.r_[np.nan, np.arange(FRAMES - 1)]), "id is nan"),
        (put(f"{ATTRIBUTES}/NDArrayUniqueId", np.arange(FRAMES) + 0.5), "id is 0.5"),
        (put(f"{ATTRIBUTES}/NDArrayUniqueId", 2**63 + np.arange(FRAMES, dtype=np.uint64)), "id is 9223372036854775808"),
        (put(f"{ATTRIBUTES}/ScanID", np.array([b"a"] * 20 + [b"b"] * 4)), "ScanID of frame 20 says b"),
        (put(f"{DETECTOR}/pixel_mask", np.full((SIZE, SIZE), 0.5)), "pixel_mask has values that are no whole"),
    ],
)  # fmt: skip
def test_a_statement_that_cannot_be_read_is_refused_by_name(change: Change, named: str, tmp_path: Path) -> None:
    refused(nexus(tmp_path, change), named)


def test_statements_as_texts_flags_and_floats(tmp_path: Path) -> None:
    texts = [put(f"{ATTRIBUTES}/Bin{axis}", np.array([b"2"] * FRAMES)) for axis in "XY"]
    scan = opened(nexus(tmp_path, *texts, put(f"{ATTRIBUTES}/ReverseX", np.array([b"Yes"] * FRAMES))))
    assert (scan.detector_pixel_m, scan.said.value("reverse_x")) == (2 * PIXEL_M, True)
    unknown = put(f"{ATTRIBUTES}/BinX", np.array([b"undefined"] * FRAMES))
    assert opened(nexus(tmp_path, unknown)).said.value("binning_x") is None
    mask = np.zeros((1, SIZE, SIZE), np.float32)
    mask[0, 3, 4] = 8
    for path in (nexus(tmp_path, put(f"{DETECTOR}/pixel_mask", mask)), cxi(tmp_path, put(f"{CAMERA}/mask", mask))):
        bad = opened(path).bad_pixels
        assert bad is not None
        assert np.argwhere(bad).tolist() == [[3, 4]]
    corner = opened(cxi(tmp_path, put(f"{CAMERA}/is_fft_shifted", True)))  # a flag of HDF5, not a number
    np.testing.assert_array_equal(corner.counts, np.fft.fftshift(COUNTS, axes=(-2, -1)))


def test_a_name_that_says_nothing_is_none(tmp_path: Path) -> None:
    for name in ("undefined", "  "):
        assert opened(nexus(tmp_path, put("entry/entry_identifier", name))).scan_id == "scan"
    late = put(f"{ATTRIBUTES}/ScanID", np.r_[np.full(4, np.nan), np.full(FRAMES - 4, 31.0)])
    assert opened(nexus(tmp_path, put("entry/entry_identifier", ""), late)).scan_id == "31"


# Ids of a counter that wraps


@pytest.mark.parametrize("bits", [8, 16, 24, 31, 32])
def test_a_route_goes_on_where_the_counter_wraps(bits: int, tmp_path: Path) -> None:
    ids = (np.arange(FRAMES, dtype=np.int64) + (1 << bits) - 9) % (1 << bits)
    route = tmp_path / "route.csv"
    np.savetxt(route, PLACES, delimiter=",", header="x,y", comments="")
    path = nexus(tmp_path, frame_ids=ids)
    np.testing.assert_allclose(opened(path, route=route).positions_m, PLACES)
    np.testing.assert_array_equal(opened(path).frame_ids, ids)
    order = np.r_[0:7, 9, 7, 8, 10:FRAMES]  # some out of order about the wrap
    path = nexus(tmp_path, frame_ids=ids[order])
    np.testing.assert_allclose(opened(path, route=route).positions_m, PLACES[order])


@pytest.mark.parametrize(
    ("ids", "expected"),
    [
        ([2**31 - 2, 2**31 - 1, -(2**31), -(2**31) + 1], [2**31 - 2, 2**31 - 1, 2**31, 2**31 + 1]),
        ([0, 1, 254, 255], [0, 1, 254, 255]),  # frames were lost
        ([3, 2**53, 2**53 + 1], [3, 2**53, 2**53 + 1]),
        ([5], [5]),
        ([-1, -1], [-1, -1]),
    ],
)
def test_which_counters_wrapped(ids: list[int], expected: list[int]) -> None:
    assert continued(np.array(ids)).tolist() == expected


# Reasons


def test_a_filter_that_is_away_is_named_wherever_it_is(tmp_path: Path) -> None:
    path = nexus(tmp_path)
    with h5py.File(path, "r+") as file:
        del file[f"{ATTRIBUTES}/PositionX"]
        file[ATTRIBUTES].create_dataset("PositionX", data=PLACES[:, 0], chunks=(FRAMES,), **hdf5plugin.Blosc())
    data = path.read_bytes()
    number = (32001).to_bytes(2, "little")
    path.write_bytes(data.replace(number, (477).to_bytes(2, "little"), 1))
    refused(path, "PositionX is compressed with HDF5 filter 477")


def test_a_link_that_leads_to_itself(tmp_path: Path) -> None:
    energy = f"{BEAM}/incident_energy"
    path = nexus(tmp_path, circle(energy))
    refused(path, f"/{energy} leads to /{energy}, and from there back to itself")
    assert opened(path, energy_ev=ENERGY_EV).energy_ev == ENERGY_EV
    refused(nexus(tmp_path, circle("entry/data/data")), "/entry/data/data", "back to itself")


def circle(name: str) -> Change:
    def change(file: h5py.File) -> None:
        del file[name]
        file[name] = h5py.SoftLink(f"/{name}")

    return change


def test_an_npz_with_one_value_for_each_frame(tmp_path: Path) -> None:
    parts: dict[str, Any] = {
        "counts": COUNTS,
        "positions_m": PLACES,
        "distance_m": DISTANCE_M,
        "detector_pixel_m": PIXEL_M,
    }
    path = tmp_path / "scan.npz"
    np.savez(path, **parts, energy_ev=np.full(FRAMES, ENERGY_EV), scan_id=247.0)
    assert (opened(path).energy_ev, opened(path).scan_id) == (ENERGY_EV, "247")
    np.savez(path, **parts, energy_ev=np.linspace(ENERGY_EV, 1.1 * ENERGY_EV, FRAMES))
    refused(path, "energy_ev[0] says 9700 eV", "energy_ev[23] says 10670 eV")
    np.savez(path, **parts, energy_ev=ENERGY_EV, wavelength_m=1e-10)
    refused(path, "energy_ev says 9700 eV", "wavelength_m says 1e-10 m")
    np.savez(path, **parts, energy_ev=ENERGY_EV, frame_ids=np.arange(FRAMES) + 0.5)
    refused(path, "id is 0.5")
