"""Statements of scan files: each is read, two that do not agree are refused, and one that was changed is named.

The cases are those of docs/reference/what-files-say.md, with values of their own.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from ptychostream.errors import FileMissingError, ScanFileError
from ptychostream.positions.positions import AxisConfig
from ptychostream.scans.inspection import taken
from ptychostream.scans.scan import Scan
from ptychostream.scans.scan_files import ScanOptions, open_scan
from ptychostream.scans.scan_writer import write_scan
from ptychostream.statements.units import JOULE_PER_EV

FRAMES, SIZE = 30, 32
ENERGY_EV, DISTANCE_M, PIXEL_M = 11_300.0, 1.42, 172e-6
ATTRIBUTES = "entry/instrument/NDAttributes"
BEAM, DETECTOR = "entry/instrument/beam", "entry/instrument/detector"
BEGIN = 1_750_000_000.5

Change = Callable[[h5py.File], Any]


def positions_m() -> np.ndarray[Any, Any]:
    return np.random.default_rng(5).uniform(-2e-6, 3e-6, (FRAMES, 2))


def counts() -> np.ndarray[Any, Any]:
    return np.random.default_rng(6).poisson(8, (FRAMES, SIZE, SIZE)).astype(np.uint16)


@pytest.fixture
def nexus(tmp_path: Path) -> Path:
    """As areaDetector writes it, with geometry: no attribute says a unit of the positions."""
    scan = Scan("s", counts(), positions_m(), ENERGY_EV, DISTANCE_M, PIXEL_M, times=BEGIN + np.arange(FRAMES) / 50)
    write_scan(tmp_path / "scan.h5", scan)
    with h5py.File(tmp_path / "scan.h5", "r+") as file:
        data = file["entry/data/data"]
        data.attrs["NDArrayDimOffset"], data.attrs["NDArrayDimBinning"] = np.array([0, 0]), np.array([1, 1])
        data.attrs["NDArrayDimReverse"] = np.array([0, 0])
    return tmp_path / "scan.h5"


@pytest.fixture
def cxi(tmp_path: Path) -> Path:
    with h5py.File(tmp_path / "scan.cxi", "w") as file:
        file["entry_1/data_1/data"] = counts()
        detector = file.create_group("entry_1/instrument_1/detector_1")
        detector["distance"], detector["x_pixel_size"], detector["y_pixel_size"] = DISTANCE_M, PIXEL_M, PIXEL_M
        file["entry_1/instrument_1/source_1/energy"] = ENERGY_EV * JOULE_PER_EV
        file["entry_1/sample_1/geometry_1/translation"] = np.pad(positions_m(), ((0, 0), (0, 1)))
    return tmp_path / "scan.cxi"


def edit(path: Path, change: Change) -> Path:
    with h5py.File(path, "r+") as file:
        change(file)
    return path


def opened(path: Path, options: ScanOptions | None = None) -> Scan:
    with open_scan(path, options) as scan:
        scan.counts[0]
        return scan


def refused(path: Path, *words: str, options: ScanOptions | None = None) -> ScanFileError:
    with pytest.raises(ScanFileError) as caught:
        opened(path, options)
    for word in (path.name, *words):
        assert word in str(caught.value), (word, str(caught.value))
    assert caught.value.remedy
    return caught.value


def put(name: str, value: Any, units: str | None = None) -> Change:
    def change(file: h5py.File) -> None:
        if file.get(name, getlink=True) is not None:
            del file[name]
        file[name] = value
        if units is not None:
            file[name].attrs["units"] = units

    return change


def scaled_column(axis: str, factor: float, units: str | None) -> Change:
    column = positions_m()[:, "XY".index(axis)] * factor
    return put(f"{ATTRIBUTES}/Position{axis}", column, units)


def attribute(name: str, value: Any) -> Change:
    return lambda file: file["entry/data/data"].attrs.__setitem__(name, np.asarray(value))


# Kind 1: what stands beside a number


@pytest.mark.slow
def test_each_column_of_positions_has_its_own_unit(nexus: Path) -> None:
    edit(nexus, scaled_column("X", 1e3, "mm"))
    edit(nexus, scaled_column("Y", 1e6, "micrometers"))
    np.testing.assert_allclose(opened(nexus).positions_m, positions_m(), rtol=1e-12)
    edit(nexus, scaled_column("Y", 1e6, None))
    refused(nexus, "PositionX says mm", "the column of y says no unit", "--position-unit")
    edit(nexus, scaled_column("Y", 1e6, "undefined"))
    refused(nexus, "no unit")
    edit(nexus, scaled_column("Y", 1e6, "keV"))
    refused(nexus, "'keV'", "a unit of energy")
    edit(nexus, scaled_column("Y", 1e3, None))
    given = ScanOptions(axes=AxisConfig(unit="mm"))
    np.testing.assert_allclose(opened(nexus, given).positions_m, positions_m(), rtol=1e-12)


def test_a_unit_that_the_user_gives_replaces_the_files(nexus: Path) -> None:
    for axis in "XY":
        edit(nexus, scaled_column(axis, 1e6, "mm"))  # says mm, is µm
    scan = opened(nexus, ScanOptions(axes=AxisConfig(unit="um", swap_xy=True)))
    np.testing.assert_allclose(scan.positions_m, positions_m()[:, ::-1], rtol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("binning", [2, 4])
def test_the_pixel_of_the_sensor_is_multiplied_by_the_binning(nexus: Path, binning: int) -> None:
    edit(nexus, attribute("NDArrayDimBinning", [binning, binning]))
    scan = opened(nexus)
    assert scan.detector_pixel_m == pytest.approx(PIXEL_M * binning)
    assert scan.said.value("binning_x") == binning
    assert opened(nexus, ScanOptions(detector_pixel_m=PIXEL_M)).detector_pixel_m == PIXEL_M
    assert opened(nexus, ScanOptions(binning=1)).detector_pixel_m == PIXEL_M


def test_the_binning_of_a_drivers_attribute(nexus: Path) -> None:
    for axis in "XY":
        edit(nexus, put(f"{ATTRIBUTES}/Bin{axis}_RBV", np.full(FRAMES, 2)))
    refused(nexus, "NDArrayDimBinning says 1", "BinY_RBV[0] says 2")
    edit(nexus, lambda file: file["entry/data/data"].attrs.pop("NDArrayDimBinning"))
    assert opened(nexus).detector_pixel_m == pytest.approx(2 * PIXEL_M)
    edit(nexus, put(f"{ATTRIBUTES}/BinX_RBV", np.r_[np.full(FRAMES - 1, 2), 4]))
    refused(nexus, "BinX_RBV[0] says 2", f"BinX_RBV[{FRAMES - 1}] says 4")


def test_a_binning_of_which_it_is_not_said_whether_the_pixel_has_it(nexus: Path) -> None:
    edit(nexus, lambda file: file["entry/data/data"].attrs.pop("NDArrayDimBinning"))
    for axis in "xy":
        edit(nexus, put(f"{DETECTOR}/binning_{axis}", 2))
    refused(nexus, "x_pixel_size", "binning 2", "/entry/instrument/detector/binning_x")
    assert opened(nexus, ScanOptions(detector_pixel_m=2 * PIXEL_M)).detector_pixel_m == 2 * PIXEL_M


def test_binning_that_makes_pixels_oblong_is_refused(nexus: Path) -> None:
    edit(nexus, attribute("NDArrayDimBinning", [2, 1]))
    refused(nexus, "× binning 2", "y_pixel_size")


def test_region_and_reverse_are_kept(nexus: Path) -> None:
    edit(nexus, attribute("NDArrayDimOffset", [128, 64]))
    edit(nexus, attribute("NDArrayDimReverse", [0, 1]))
    said = opened(nexus).said
    found = [said.value(name) for name in ("offset_x", "offset_y", "reverse_x", "reverse_y")]
    assert found == [128, 64, False, True]


@pytest.mark.slow
def test_a_pixel_that_is_higher_than_wide_is_refused(nexus: Path) -> None:
    edit(nexus, put(f"{DETECTOR}/y_pixel_size", 0.055, "mm"))
    refused(nexus, "x_pixel_size says", "y_pixel_size says 0.055 mm")
    edit(nexus, lambda file: file[DETECTOR].pop("x_pixel_size"))
    assert opened(nexus).detector_pixel_m == pytest.approx(55e-6)


@pytest.mark.slow
def test_energy_beside_wavelength(nexus: Path) -> None:
    angstrom = 12.398419843320026 / (ENERGY_EV * 1e-3)
    edit(nexus, put(f"{BEAM}/incident_wavelength", angstrom, "angstrom"))
    assert opened(nexus).energy_ev == ENERGY_EV
    edit(nexus, put(f"{BEAM}/incident_wavelength", 2 * angstrom, "angstrom"))
    refused(nexus, "incident_energy says 11300 eV", "incident_wavelength says 2.1944106 angstrom")
    edit(nexus, lambda file: file[BEAM].pop("incident_energy"))
    assert opened(nexus).energy_ev == pytest.approx(ENERGY_EV / 2)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "value", "units", "said"),
    [
        (f"{BEAM}/incident_energy", 11.3, "eV", "positions lie within"),  # keV taken for eV
        (f"{BEAM}/incident_energy", 11_300.0, "keV", "1e+06"),
        (f"{BEAM}/incident_energy", 9.3, "eV", "outside 10 to"),
        (f"{DETECTOR}/distance", 1420.0, "m", "outside"),  # mm taken for m
        (f"{BEAM}/incident_energy", np.nan, "eV", "nan"),
        (f"{BEAM}/incident_energy", "about ten", None, "'about ten'"),
        (f"{DETECTOR}/distance", 1.42, "parsec", "'parsec'"),
        (f"{BEAM}/incident_energy", np.r_[11_300.0, 11_301.0, 12_000.0], "eV", "incident_energy[2] says 12000 eV"),
        ("entry/instrument/source/probe", "neutron", None, "neutron"),
    ],
)
def test_values_that_no_instrument_has(nexus: Path, name: str, value: Any, units: str | None, said: str) -> None:
    edit(nexus, put(name, value, units))
    refused(nexus, said)


def test_positions_in_another_unit_than_they_say(nexus: Path) -> None:
    for axis in "XY":
        edit(nexus, scaled_column(axis, 1e3, "um"))  # mm taken for µm
    refused(nexus, "positions lie within", "position", "PositionX says um")
    for axis in "XY":
        edit(nexus, scaled_column(axis, 1e9, "mm"))  # nm taken for mm
    refused(nexus, "pixels", "PositionX says mm")
    for axis in "XY":
        edit(nexus, put(f"{ATTRIBUTES}/Position{axis}", np.zeros(FRAMES), "m"))
    refused(nexus, "positions lie within 0 m")


def test_energy_and_distance_spelled_out_or_as_texts(nexus: Path) -> None:
    edit(nexus, put(f"{BEAM}/incident_energy", 11.3, "kiloelectronvolts"))
    edit(nexus, put(f"{DETECTOR}/distance", np.bytes_("142"), "Centimetres"))
    scan = opened(nexus)
    assert (scan.energy_ev, scan.distance_m) == pytest.approx((ENERGY_EV, DISTANCE_M))


# Times


def stamps(file: h5py.File, offset: float, epics: bool) -> None:
    group = file[ATTRIBUTES]
    group["NDArrayTimeStamp"][...] = BEGIN + np.arange(FRAMES) / 50 + offset
    del group["NDArrayTimeStamp"].attrs["epoch"]
    if not epics:
        group["NDArrayEpicsTSSec"][...] = 0


@pytest.mark.parametrize("offset", [0.0, -631_152_000.0, 5.0 - BEGIN])
def test_the_epics_stamp_says_what_the_time_stamp_counts_from(nexus: Path, offset: float) -> None:
    """From 1970, from 1990, and from when the camera was switched on."""
    edit(nexus, lambda file: stamps(file, offset, epics=True))
    scan = opened(nexus)
    assert scan.times is not None
    np.testing.assert_allclose(scan.times, BEGIN + np.arange(FRAMES) / 50, rtol=0, atol=1e-5)
    edit(nexus, lambda file: file[ATTRIBUTES]["NDArrayEpicsTSSec"].write_direct(np.zeros(FRAMES, "u4")))
    scan = opened(nexus)
    assert (scan.times, scan.said.value("epoch")) == (None, "unknown")
    np.testing.assert_allclose(scan.metadata["attributes"]["NDArrayTimeStamp"][0], BEGIN + offset)


def test_an_epoch_that_the_stamps_contradict(nexus: Path) -> None:
    edit(nexus, lambda file: file[ATTRIBUTES]["NDArrayTimeStamp"].attrs.__setitem__("epoch", "EPICS"))
    refused(nexus, "NDArrayEpicsTSSec says POSIX", "NDArrayTimeStamp@epoch says EPICS")


# CXI and NXcxi_ptycho


def test_translation_is_the_samples(cxi: Path) -> None:
    scan = opened(cxi)
    np.testing.assert_array_equal(scan.positions_m, positions_m())
    assert scan.said.value("position_sense") == "sample"


@pytest.mark.parametrize(
    ("basis", "expected"),
    [
        ([[0, -PIXEL_M, 0], [-PIXEL_M, 0, 0]], lambda t: t),  # the default one, written
        ([[0, PIXEL_M, 0], [-PIXEL_M, 0, 0]], lambda t: t * [1, -1]),
        ([[0, -1, 0], [1, 0, 0]], lambda t: t * [-1, 1]),
        ([[-PIXEL_M, 0, 0], [0, -PIXEL_M, 0]], lambda t: t[:, ::-1]),
    ],
)
def test_the_basis_of_the_detector_is_applied(cxi: Path, basis: list[Any], expected: Callable[[Any], Any]) -> None:
    place = "entry_1/instrument_1/detector_1/basis_vectors"
    for vectors in (np.array(basis, float), np.array(basis, float).T, np.array([basis] * FRAMES, float)):
        edit(cxi, put(place, vectors))
        np.testing.assert_allclose(opened(cxi).positions_m, expected(positions_m()), rtol=1e-12, atol=1e-20)


def test_a_basis_that_is_none(cxi: Path) -> None:
    place = "entry_1/instrument_1/detector_1/basis_vectors"
    edit(cxi, put(place, np.array([[0, -PIXEL_M, 0], [0, -PIXEL_M, 0]])))
    refused(cxi, "basis_vectors", "perpendicular")
    edit(cxi, put(place, np.eye(3)))
    refused(cxi, "basis_vectors has shape (3, 3)")
    edit(cxi, put(place, np.array([[0, -2 * PIXEL_M, 0], [-2 * PIXEL_M, 0, 0]])))
    refused(cxi, "basis_vectors says a vector of 0.000344 m", "x_pixel_size")


def test_the_photons_energy_and_the_storage_rings(cxi: Path) -> None:
    beam, source = "entry_1/instrument_1/beam_1/incident_beam_energy", "entry_1/instrument_1/source_1/energy"
    edit(cxi, put(source, 3.0, "GeV"))
    refused(cxi, "does not give energy_ev")
    edit(cxi, put(beam, 11.3, "keV"))
    assert opened(cxi).energy_ev == pytest.approx(ENERGY_EV)
    edit(cxi, put(source, 8.0 * 1e3 * JOULE_PER_EV, "J"))
    refused(cxi, "incident_beam_energy says 11.3 keV", "source_1/energy says")
    edit(cxi, put(source, 11.3, "keV"))
    edit(cxi, put("entry_1/instrument_1/source_1/wavelength", 1e-10, "m"))
    refused(cxi, "incident_beam_energy says 11.3 keV", "wavelength says 1e-10 m")


def test_bits_of_the_mask_by_name(cxi: Path) -> None:
    mask = np.full((SIZE, SIZE), 0x1000, np.uint32)
    mask[3, 4], mask[5, 6], mask[7, 8] = 0x1008, 0x2, 0x200
    edit(cxi, put("entry_1/instrument_1/detector_1/mask", mask))
    bad = opened(cxi).bad_pixels
    assert bad is not None
    assert np.argwhere(bad).tolist() == [[3, 4], [5, 6], [7, 8]]


# Kind 6: errors that name the cause


def test_columns_of_one_value_a_row_are_positions(nexus: Path) -> None:
    for axis in "XY":
        edit(nexus, put(f"{ATTRIBUTES}/Position{axis}", positions_m()[:, ["XY".index(axis)]], "m"))
    np.testing.assert_array_equal(opened(nexus).positions_m, positions_m())


def test_text_where_a_position_is_expected(nexus: Path) -> None:
    texts = np.array([b"undefined"] * FRAMES, "S256")
    edit(nexus, put(f"{ATTRIBUTES}/PositionY", texts))
    refused(nexus, "attribute PositionY is the text 'undefined' for frame 0", "not connected")
    edit(nexus, put(f"{ATTRIBUTES}/PositionY", positions_m()[:, 1].astype("S32"), "m"))
    np.testing.assert_allclose(opened(nexus).positions_m, positions_m())


def virtual(folder: Path, missing: int | None = None, blocks: int = 5) -> Path:
    size = FRAMES // blocks
    layout = h5py.VirtualLayout((FRAMES, SIZE, SIZE), np.uint16)
    for block in range(blocks):
        name = f"part_{block}.h5"
        with h5py.File(folder / name, "w") as file:
            file["data"] = counts()[block * size : (block + 1) * size]
        layout[block * size : (block + 1) * size] = h5py.VirtualSource(name, "data", (size, SIZE, SIZE))
    write_scan(folder / "master.h5", Scan("v", counts(), positions_m(), ENERGY_EV, DISTANCE_M, PIXEL_M))
    with h5py.File(folder / "master.h5", "r+") as file:
        del file["entry/data/data"], file["entry/instrument/detector/data"]
        file["entry/data"].create_virtual_dataset("data", layout)
    if missing is not None:
        (folder / f"part_{missing}.h5").unlink()
    return folder / "master.h5"


def test_a_virtual_data_set_whose_file_is_away(tmp_path: Path) -> None:
    with open_scan(virtual(tmp_path)) as scan:
        np.testing.assert_array_equal(np.asarray(scan.counts), counts())
    path = virtual(tmp_path, missing=3)
    with pytest.raises(FileMissingError, match=r"part_3\.h5 is not there"):
        opened(path)


def test_a_virtual_data_set_whose_source_is_another_file(tmp_path: Path) -> None:
    path = virtual(tmp_path)
    with h5py.File(tmp_path / "part_4.h5", "w") as file:
        file["other"] = counts()
    with open_scan(path) as scan:
        assert scan.counts[0].sum() > 0
        with pytest.raises(ScanFileError, match=r"part_4\.h5:data cannot be opened"):
            scan.counts[FRAMES - 1]


def test_a_virtual_data_set_with_a_part_that_comes_from_nowhere(tmp_path: Path) -> None:
    path = virtual(tmp_path)
    layout = h5py.VirtualLayout((FRAMES, SIZE, SIZE), np.uint16)
    for _ in range(5):  # all at the same place, as many values as there are frames
        layout[:6] = h5py.VirtualSource("part_0.h5", "data", (6, SIZE, SIZE))
    with h5py.File(path, "r+") as file:
        del file["entry/data/data"]
        file["entry/data"].create_virtual_dataset("data", layout)
    refused(path, "have no source")


# Any file with one statement changed either gives the same picture or names the statement


CHANGES: list[tuple[str, Change, str]] = [
    ("energy", put(f"{BEAM}/incident_energy", ENERGY_EV * 1e-3, "keV"), ""),
    ("energy without unit", put(f"{BEAM}/incident_energy", ENERGY_EV), ""),
    ("energy in J", put(f"{BEAM}/incident_energy", ENERGY_EV * JOULE_PER_EV, "J"), ""),
    ("energy, wrong unit", put(f"{BEAM}/incident_energy", ENERGY_EV, "MeV"), "incident_energy"),
    ("energy in m", put(f"{BEAM}/incident_energy", ENERGY_EV, "m"), "incident_energy"),
    ("a second energy", put("entry/instrument/monochromator/energy", 9_000.0, "eV"), "monochromator/energy"),
    ("the same energy", put("entry/instrument/monochromator/energy", ENERGY_EV, "eV"), ""),
    ("distance in mm", put(f"{DETECTOR}/distance", DISTANCE_M * 1e3, "mm"), ""),
    ("distance without unit", put(f"{DETECTOR}/distance", DISTANCE_M * 1e3), "distance"),
    ("distance 0", put(f"{DETECTOR}/distance", 0.0, "m"), "distance"),
    ("pixel in µm", put(f"{DETECTOR}/x_pixel_size", PIXEL_M * 1e6, "µm"), ""),
    ("pixel without unit", put(f"{DETECTOR}/x_pixel_size", PIXEL_M * 1e6), "x_pixel_size"),
    ("pixel of a row", put(f"{DETECTOR}/y_pixel_size", 75e-6, "m"), "y_pixel_size"),
    ("x in µm", scaled_column("X", 1e6, "um"), ""),
    ("y in Å", scaled_column("Y", 1e10, "Å"), ""),
    ("x without unit", scaled_column("X", 1.0, None), "PositionY"),
    ("y in volts", scaled_column("Y", 1.0, "V"), "PositionY"),
    ("binning of a row", attribute("NDArrayDimBinning", [1, 2]), "NDArrayDimBinning"),
    ("offset", attribute("NDArrayDimOffset", [4, 8]), ""),
    ("bin beside", put(f"{ATTRIBUTES}/BinX", np.full(FRAMES, 3)), "BinX"),
    ("the same bin", put(f"{ATTRIBUTES}/BinX", np.ones(FRAMES, int)), ""),
    ("epoch", lambda file: file[ATTRIBUTES]["NDArrayTimeStamp"].attrs.__setitem__("epoch", "EPICS"), "epoch"),
    ("probe", put("entry/instrument/source/probe", "proton"), "source/probe"),
    ("probe said otherwise", put("entry/instrument/source/probe", "photon"), ""),
    ("wavelength", put(f"{BEAM}/incident_wavelength", 0.1, "nm"), "incident_wavelength"),
    ("no distance", lambda file: file[DETECTOR].pop("distance"), "distance"),
    ("no energy", lambda file: file[BEAM].pop("incident_energy"), "energy"),
]


@pytest.mark.slow
@pytest.mark.parametrize(("change", "named"), [row[1:] for row in CHANGES], ids=[row[0] for row in CHANGES])
def test_one_changed_statement_gives_the_same_picture_or_is_named(nexus: Path, change: Change, named: str) -> None:
    edit(nexus, change)
    if named:
        refused(nexus, named)
        return
    scan = opened(nexus)
    assert (scan.energy_ev, scan.distance_m, scan.detector_pixel_m) == pytest.approx((ENERGY_EV, DISTANCE_M, PIXEL_M))
    np.testing.assert_allclose(scan.positions_m, positions_m(), rtol=1e-9)


def test_a_virtual_data_set_in_a_file_that_was_renamed(tmp_path: Path) -> None:
    write_scan(tmp_path / "old.h5", Scan("v", counts(), positions_m(), ENERGY_EV, DISTANCE_M, PIXEL_M))
    layout = h5py.VirtualLayout((FRAMES, SIZE, SIZE), np.uint16)
    layout[:] = h5py.VirtualSource("old.h5", "counts", (FRAMES, SIZE, SIZE))
    with h5py.File(tmp_path / "old.h5", "r+") as file:
        file["counts"] = file.pop("entry/data/data")[()]
        file["entry/data"].create_virtual_dataset("data", layout)
    refused((tmp_path / "old.h5").rename(tmp_path / "new.h5"), "its file old.h5 is not there")


# Kind 3, offline: which place belongs to which frame


def with_ids(path: Path, ids: Any) -> Path:
    return edit(path, lambda file: file[ATTRIBUTES]["NDArrayUniqueId"].write_direct(np.asarray(ids, np.int64)))


def route_of(path: Path, rows: np.ndarray[Any, Any]) -> ScanOptions:
    path.write_text("x,y\n" + "\n".join(f"{x!r},{y!r}" for x, y in rows.tolist()), encoding="utf-8")
    return ScanOptions(route=path)


@pytest.mark.slow
@pytest.mark.parametrize("start", [0, 1, 4711])
def test_a_route_goes_by_id_where_the_file_has_ids(nexus: Path, tmp_path: Path, start: int) -> None:
    order = np.random.default_rng(9).permutation(FRAMES)
    path = with_ids(nexus, order + start)
    options = route_of(tmp_path / "route.csv", positions_m())
    np.testing.assert_allclose(opened(path, options).positions_m, positions_m()[order], rtol=1e-9)


def test_a_route_and_a_frame_that_was_lost(nexus: Path, tmp_path: Path) -> None:
    rows = np.vstack([positions_m(), [[9e-6, 9e-6]]])
    options = route_of(tmp_path / "route.csv", rows)
    kept = np.delete(np.arange(1, FRAMES + 2), 11)
    np.testing.assert_allclose(
        opened(with_ids(nexus, kept), options).positions_m, np.delete(rows, 11, axis=0), rtol=1e-9
    )
    path = with_ids(nexus, np.arange(1, FRAMES + 1))  # the first frame was lost, or the last one
    refused(path, "31 positions", "from 1 to 30", "--first-id", options=options)
    for first, expected in ((1, rows[:-1]), (0, rows[1:])):
        given = ScanOptions(route=options.route, first_id=first)
        np.testing.assert_allclose(opened(path, given).positions_m, expected, rtol=1e-9)


def test_a_route_and_ids_that_cannot_be_right(nexus: Path, tmp_path: Path) -> None:
    options = route_of(tmp_path / "route.csv", positions_m())
    refused(with_ids(nexus, np.arange(FRAMES) % 15), "frame id 0 occurs 2 times", options=options)
    refused(with_ids(nexus, 2 * np.arange(FRAMES)), "from 0 to 58", "30 positions", options=options)
    unset = opened(with_ids(nexus, np.zeros(FRAMES)), options)
    np.testing.assert_allclose(unset.positions_m, positions_m(), rtol=1e-9)


def test_the_scans_id_is_that_of_its_frames(nexus: Path) -> None:
    edit(nexus, lambda file: file["entry"].pop("entry_identifier"))
    edit(nexus, put(f"{ATTRIBUTES}/ScanID", np.full(FRAMES, 247.0)))
    assert opened(nexus).scan_id == "247"
    edit(nexus, put(f"{ATTRIBUTES}/ScanID", np.array([b"gold_3"] * FRAMES)))
    assert opened(nexus).scan_id == "gold_3"
    edit(nexus, put(f"{ATTRIBUTES}/ScanID", np.array([b"gold_3"] * 20 + [b"gold_4"] * (FRAMES - 20))))
    refused(nexus, "ScanID of frame 0 says gold_3", "ScanID of frame 20 says gold_4")


def test_a_file_without_geometry_can_be_opened_where_none_is_needed(nexus: Path) -> None:
    edit(nexus, lambda file: file["entry/instrument"].pop("beam"))
    refused(nexus, "does not give energy_ev")
    with open_scan(nexus, geometry=False) as scan:
        assert np.isnan(scan.energy_ev)
        np.testing.assert_array_equal(scan.positions_m, positions_m())


# What was said is kept


@pytest.mark.slow
def test_statements_are_kept_by_a_file_of_our_own(nexus: Path, tmp_path: Path) -> None:
    edit(nexus, attribute("NDArrayDimBinning", [2, 2]))
    edit(nexus, attribute("NDArrayDimOffset", [128, 64]))
    edit(nexus, attribute("NDArrayDimReverse", [0, 1]))
    edit(nexus, put(f"{DETECTOR}/bit_depth_readout", 12))
    edit(nexus, put(f"{DETECTOR}/saturation_value", 4095))
    with open_scan(nexus) as scan:
        scan.said.state("threshold", 1, "attribute Threshold")
        write_scan(tmp_path / "again.h5", scan)
    with open_scan(tmp_path / "again.h5") as again:
        write_scan(tmp_path / "third.h5", again)
    assert again.detector_pixel_m == pytest.approx(2 * PIXEL_M)  # and not twice that
    names = ("binning_x", "binning_y", "offset_x", "offset_y", "reverse_x", "reverse_y", "bit_depth", "saturation")
    kept = {name: again.said.value(name) for name in names}
    assert kept == {name: scan.said.value(name) for name in names}
    assert again.said.value("threshold") == 1
    assert "statements" not in again.metadata
    assert opened(tmp_path / "third.h5").detector_pixel_m == again.detector_pixel_m


# Links that lead nowhere


@pytest.mark.slow
@pytest.mark.parametrize(
    ("place", "options"),
    [
        (f"{BEAM}/incident_energy", ScanOptions(energy_ev=ENERGY_EV)),
        (f"{DETECTOR}/distance", ScanOptions(distance_m=DISTANCE_M)),
        (f"{DETECTOR}/y_pixel_size", ScanOptions(detector_pixel_m=PIXEL_M)),
        (f"{DETECTOR}/pixel_mask", None),
        (f"{ATTRIBUTES}/PositionX", None),
        (f"{ATTRIBUTES}/NDArrayUniqueId", None),
        ("entry/data/data", None),
    ],
)
def test_a_link_to_a_file_that_is_away(nexus: Path, place: str, options: ScanOptions | None) -> None:
    edit(nexus, put(place, h5py.ExternalLink("elsewhere.h5", "/value")))
    if place == "entry/data/data":
        edit(nexus, lambda file: file[DETECTOR].pop("data"))
    refused(nexus, f"/{place} leads to the file elsewhere.h5, which is not there")
    if options is not None:  # what is given in its place is not looked for
        assert opened(nexus, options).energy_ev == ENERGY_EV
    edit(nexus, put(place, h5py.SoftLink("/entry/nowhere")))
    refused(nexus, f"/{place} leads to /entry/nowhere, which is not in the file")


def test_a_mask_of_cxi_behind_a_broken_link(cxi: Path) -> None:
    edit(cxi, put("entry_1/instrument_1/detector_1/mask", h5py.ExternalLink("mask.h5", "/mask")))
    refused(cxi, "detector_1/mask leads to the file mask.h5")


def test_a_summary_says_which_rule_was_taken(nexus: Path, cxi: Path) -> None:
    rules = taken(opened(cxi))
    assert (
        "positions: /entry_1/sample_1/geometry_1/translation says a translation, which in CXI is the sample's" in rules
    )
    assert any(rule.startswith("assumed: metres in a unit of the x positions 1.0 m (CXI") for rule in rules)
    assert not any("position" in rule for rule in taken(opened(nexus)))
