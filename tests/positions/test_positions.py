"""The position sources and the route files."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest
from pydantic import ValidationError

from ptychostream.errors import GeometryError, ScanFileError
from ptychostream.frames.frames import Frame
from ptychostream.positions.positions import (
    AttributePositions,
    AxisConfig,
    NeverPlaced,
    RoutePositions,
    WaveformPositions,
)

NO_COUNTS = np.zeros((1, 1), np.uint16)


def frame(number: int = 0, scan: str = "", **attributes: float | int | str) -> Frame:
    return Frame(scan, number, 0.0, NO_COUNTS, attributes)


def test_axes_are_swapped_then_signed_and_scaled() -> None:
    axes = AxisConfig(unit="um", swap_xy=True, sign_x=-1)
    assert axes.apply(1.0, 2.0) == pytest.approx((-2e-6, 1e-6))
    x, y = axes.apply(np.array([1.0, 3.0]), np.array([2.0, 4.0]))
    np.testing.assert_allclose(x, [-2e-6, -4e-6])
    np.testing.assert_allclose(y, [1e-6, 3e-6])


def test_positions_are_turned_from_x_towards_y_after_swap_and_signs() -> None:
    axes = AxisConfig(unit="um", swap_xy=True, sign_x=-1, rotation_deg=90)
    assert axes.apply(1.0, 2.0) == pytest.approx((-1e-6, -2e-6))
    slanted = AxisConfig(unit="um", sign_y=-1, rotation_deg=-126.3)
    x, y = slanted.apply(np.array([1.0, 3.0]), np.array([2.0, 4.0]))
    np.testing.assert_allclose(np.hypot(x, y), np.hypot([1e-6, 3e-6], [2e-6, 4e-6]))
    turned = np.degrees(np.arctan2(y, x) - np.arctan2([-2, -4], [1, 3])) % 360
    np.testing.assert_allclose(turned, 360 - 126.3)
    attributes = AttributePositions("X", "Y", slanted).lookup(frame(X=1.0, Y=2.0))
    assert attributes == pytest.approx((x[0], y[0]), abs=1e-18)


@pytest.mark.parametrize(("unit", "metres"), [("m", 1.0), ("mm", 1e-3), ("um", 1e-6), ("nm", 1e-9)])
def test_units(unit: str, metres: float) -> None:
    assert AxisConfig(unit=unit).apply(1.0, -1.0) == (metres, -metres)


@pytest.mark.parametrize(
    "wrong", [{"unit": "inch"}, {"sign_x": 2}, {"sign_y": 0}, {"swap": True}, {"rotation_deg": 181}]
)
def test_senseless_axes_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        AxisConfig(**wrong)


def test_attributes_place_a_frame() -> None:
    axes = AxisConfig(unit="nm", swap_xy=True, sign_y=-1)
    source = AttributePositions("SampleX", "SampleY", axes)
    place = source.lookup(frame(SampleX=3, SampleY="4.5"))
    assert place == pytest.approx((4.5e-9, -3e-9), abs=1e-20)
    assert place == pytest.approx(axes.apply(3.0, 4.5), abs=1e-20)


@pytest.mark.parametrize(
    "attributes",
    [{}, {"X": 1.0}, {"X": 1.0, "Y": np.nan}, {"X": np.inf, "Y": 0.0}, {"X": "moving", "Y": 0.0}, {"X": "", "Y": 0.0}],
)
def test_attributes_that_are_no_position_never_place(attributes: dict[str, float | str]) -> None:
    with pytest.raises(NeverPlaced, match="frame 7"):
        AttributePositions("X", "Y").lookup(frame(7, **attributes))


def test_waveforms_fill_while_the_scan_runs() -> None:
    source = WaveformPositions(AxisConfig(unit="um"), first_id=100)
    assert source.lookup(frame(100)) is None
    source.update([1.0, 2.0, np.nan, 4.0, np.nan], [5.0, 6.0, 7.0, 8.0, 9.0, 10.0])
    assert source.lookup(frame(101)) == pytest.approx((2e-6, 6e-6))
    assert source.lookup(frame(102)) is None
    assert source.lookup(frame(103)) == pytest.approx((4e-6, 8e-6))
    assert source.lookup(frame(104)) is None
    assert source.lookup(frame(105)) is None
    assert source.known_below == 104
    with pytest.raises(NeverPlaced, match="before"):
        source.lookup(frame(99))


def test_complete_waveforms_settle_every_frame() -> None:
    source = WaveformPositions()
    source.update([1.0, np.nan, 3.0], [1.0, 2.0, np.inf], complete=True)
    assert source.lookup(frame(0)) == (1.0, 1.0)
    for number in (1, 2, 3, -1):
        with pytest.raises(NeverPlaced):
            source.lookup(frame(number))
    source.clear()
    assert source.lookup(frame(0)) is None


def test_waveforms_of_one_scan_do_not_place_the_frames_of_another() -> None:
    source = WaveformPositions()
    source.update([1.0], [2.0], complete=True, scan="41")
    assert source.lookup(frame(0, "41")) == (1.0, 2.0)
    assert source.lookup(frame(0, "42")) is None
    assert source.lookup(frame(9, "42")) is None


def test_the_version_says_when_answers_may_have_changed() -> None:
    source = WaveformPositions()
    versions = [source.version]
    source.update([1.0], [1.0])
    versions.append(source.version)
    source.clear()
    versions.append(source.version)
    assert len(set(versions)) == 3


@pytest.mark.parametrize(
    ("x", "y", "match"),
    [([[1.0]], [1.0], "shape"), (["a"], [1.0], "not numbers"), ([1.0, 2.0], [1.0], "2 x and 1 y")],
)
def test_bad_waveforms_are_refused_and_the_old_ones_stay(x: list[object], y: list[float], match: str) -> None:
    source = WaveformPositions()
    source.update([5.0], [6.0])
    with pytest.raises(GeometryError, match=match):
        source.update(x, y, complete=True)
    assert source.lookup(frame(0)) == (5.0, 6.0)


@pytest.mark.parametrize(
    "text",
    [
        "1,10\n2,20\n3,30\n",
        "x;y\r\n1;10\r\n2;20\r\n3;30\r\n",
        "# made by hand\n\n 1 10\n2\t20  # the second\n3 3e1",
        '\ufeff"Y","note","X"\n10,a,1\n20,b,2\n30,c,3\n',
    ],
)
def test_route_without_ids_is_in_order(tmp_path: Path, text: str) -> None:
    path = tmp_path / "route.csv"
    path.write_text(text, encoding="utf-8")
    source = RoutePositions(path, AxisConfig(unit="mm"), first_id=5)
    assert [source.lookup(frame(number)) for number in (5, 6, 7)] == [
        pytest.approx((n * 1e-3, n * 1e-2)) for n in (1, 2, 3)
    ]
    for number in (4, 8):
        with pytest.raises(NeverPlaced):
            source.lookup(frame(number))


def test_route_with_ids(tmp_path: Path) -> None:
    path = tmp_path / "route.csv"
    path.write_text("id,x,y\n12,1,2\n10,3,4\n11,nan,4\n")
    source = RoutePositions(path)
    assert source.lookup(frame(10)) == (3, 4)
    assert source.lookup(frame(12)) == (1, 2)
    for number in (11, 13):
        with pytest.raises(NeverPlaced):
            source.lookup(frame(number))


@pytest.mark.parametrize("ids", [None, [7, 3]])
def test_route_in_hdf5_whatever_its_name(tmp_path: Path, ids: list[int] | None) -> None:
    path = tmp_path / "route.dat"
    with h5py.File(path, "w") as file:
        file["x"], file["y"] = np.array([1, 2], np.int32), np.array([3, 4], np.float32)
        if ids:
            file["id"] = ids
    source = RoutePositions(path)
    first, second = ids or [0, 1]
    assert source.lookup(frame(first)) == (1, 3)
    assert source.lookup(frame(second)) == (2, 4)


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (b"", "empty"),
        (b"# nothing\n\n", "empty"),
        (b"x,y\n", "no positions"),
        (b"1,2\n3\n", "row 2: 1 columns instead of 2"),
        (b"1,2\n3,4,5\n", "row 2: 3 columns instead of 2"),
        (b"1,2\n3,four\n", "row 2: a value that is no number"),
        (b"1,2,3,4\n", "4 columns"),
        (b"id,x,y\n1,2,3\n1,4,5\n", "id 1 occurs 2 times"),
        (b"id,x,y\n1.5,2,3\n", "1.5 is not a whole number"),
        (b"id,x,y\nnan,2,3\n", "not a whole number"),
        (b"\xff\xfe\x00\x01", "neither text nor HDF5"),
        (b"\x89HDF\r\n\x1a\n truncated", "route"),
    ],
)
def test_bad_route_files_are_named_with_the_row(tmp_path: Path, content: bytes, match: str) -> None:
    path = tmp_path / "route.csv"
    path.write_bytes(content)
    with pytest.raises(ScanFileError, match=match) as error:
        RoutePositions(path)
    assert str(path) in str(error.value)
    assert error.value.remedy


@pytest.mark.parametrize(
    "columns",
    [
        {"x": [1.0]},
        {"x": [1.0], "y": [[1.0, 2.0]]},
        {"x": [1.0], "y": [b"a"]},
        {"x": [1.0, 2.0], "y": [1.0]},
        {"x": [1.0], "y": [1.0], "id": [1, 2]},
        {"x": np.zeros(0), "y": np.zeros(0)},
    ],
)
def test_bad_hdf5_routes_are_refused(tmp_path: Path, columns: dict[str, object]) -> None:
    path = tmp_path / "route.h5"
    with h5py.File(path, "w") as file:
        for name, values in columns.items():
            file[name] = values
    with pytest.raises(ScanFileError, match=r"route\.h5"):
        RoutePositions(path)


def test_a_route_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ScanFileError, match="No such file"):
        RoutePositions(tmp_path / "nothing.csv")
