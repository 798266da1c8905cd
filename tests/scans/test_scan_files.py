"""Scan files: what is written is read, every layout, and everything wrong is told with its cause."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import hdf5plugin
import numpy as np
import pytest
from numpy.typing import NDArray

from ptychostream.errors import ScanFileError
from ptychostream.positions.positions import AxisConfig
from ptychostream.scans.scan import Scan
from ptychostream.scans.scan_files import ScanOptions, open_scan
from ptychostream.scans.scan_layout import CODECS, EPICS_EPOCH
from ptychostream.scans.scan_writer import ScanWriter, write_scan
from ptychostream.statements.units import JOULE_PER_EV

FRAMES, HEIGHT, WIDTH = 23, 12, 16


def make_scan(dtype: str = "u2") -> Scan:
    random = np.random.default_rng(1)
    return Scan(
        scan_id="scan_7",
        counts=random.poisson(40, (FRAMES, HEIGHT, WIDTH)).astype(dtype),
        positions_m=random.uniform(-1e-6, 1e-6, (FRAMES, 2)),
        energy_ev=10_000.0,
        distance_m=0.9,
        detector_pixel_m=55e-6,
        bad_pixels=random.random((HEIGHT, WIDTH)) < 0.1,
        probe=random.normal(size=(2, HEIGHT, WIDTH)).astype(np.complex64),
        frame_ids=np.arange(100, 100 + FRAMES),
        times=1_700_000_000.25 + np.arange(FRAMES) / 100,
        metadata={"sample": "étched", "dose": [1, 2]},
    )


def assert_same(read: Scan, written: Scan) -> None:
    assert read.scan_id == written.scan_id
    assert (read.energy_ev, read.distance_m, read.detector_pixel_m, read.radiation) == (
        written.energy_ev,
        written.distance_m,
        written.detector_pixel_m,
        written.radiation,
    )
    assert read.counts.dtype == written.counts.dtype
    np.testing.assert_array_equal(np.asarray(read.counts), written.counts)
    np.testing.assert_array_equal(read.positions_m, written.positions_m)
    for name in ("bad_pixels", "probe", "frame_ids", "times"):
        np.testing.assert_array_equal(getattr(read, name), getattr(written, name), err_msg=name)


@pytest.fixture
def written(tmp_path: Path) -> Path:
    write_scan(tmp_path / "scan.h5", make_scan())
    return tmp_path / "scan.h5"


def edit(path: Path, change: Callable[[h5py.File], Any]) -> Path:
    with h5py.File(path, "r+") as file:
        change(file)
    return path


def refused(path: Path, match: str, options: ScanOptions | None = None) -> ScanFileError:
    with pytest.raises(ScanFileError, match=match) as caught, open_scan(path, options) as scan:
        np.asarray(scan.counts)
    assert path.name in str(caught.value)
    assert caught.value.remedy
    return caught.value


# Round trips


@pytest.mark.slow
@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("dtype", ["u1", "i2", "u2", "u4", "i4"])
def test_round_trip(tmp_path: Path, codec: str, dtype: str) -> None:
    scan = make_scan(dtype)
    write_scan(tmp_path / "a", scan, codec=codec)
    with open_scan(tmp_path / "a") as read:
        assert_same(read, scan)
        assert read.metadata == scan.metadata


@pytest.mark.slow
def test_filters_of_others_are_read(tmp_path: Path) -> None:
    scan = make_scan()
    for name, filters in {"zstd": hdf5plugin.Zstd(), "blosc2": hdf5plugin.Blosc2(), "gzip": {"compression": 4}}.items():
        path = tmp_path / name
        write_scan(path, scan, codec="none")

        def recompress(file: h5py.File, filters: Any = filters) -> None:
            del file["entry/data/data"], file["entry/instrument/detector/data"]
            file["entry/data"].create_dataset("data", data=scan.counts, chunks=(1, HEIGHT, WIDTH), **filters)

        with open_scan(edit(path, recompress)) as read:
            np.testing.assert_array_equal(np.asarray(read.counts), scan.counts)


def test_the_file_is_what_area_detector_writes_and_viewers_open(written: Path) -> None:
    with h5py.File(written) as file:
        assert file["entry"].attrs["NX_class"] == "NXentry"
        assert file[file.attrs["default"]].attrs["default"] == "data"
        data = file["entry/data"]
        assert data[data.attrs["signal"]] == file["entry/instrument/detector/data"]
        assert data["data"].chunks == (1, HEIGHT, WIDTH)
        assert data["data"].maxshape[0] is None
        attributes = file["entry/instrument/NDAttributes"]
        assert attributes["NDArrayUniqueId"][0] == 100
        assert attributes["NDArrayEpicsTSSec"][0] == 1_700_000_000 - EPICS_EPOCH
        assert attributes["NDArrayEpicsTSnSec"][0] == 250_000_000
        assert len(attributes["PositionX"]) == FRAMES


def test_a_scan_larger_than_the_writers_block_grows(tmp_path: Path) -> None:
    with ScanWriter(
        tmp_path / "long.h5", (4, 4), "u1", energy_ev=1e4, distance_m=1.0, detector_pixel_m=1e-4, codec="none"
    ) as writer:
        for index in range(1000):
            writer.append(np.full((4, 4), index % 251, np.uint8), index, 0.0, index * 1e-9, 0.0)
    with open_scan(tmp_path / "long.h5") as scan:
        assert len(scan) == 1000
        assert scan.counts[777][0, 0] == 777 % 251
        assert scan.positions_m[777, 0] == pytest.approx(777e-9)
        assert scan.times is None
        assert scan.scan_id == "long"


# Lazy counts


def test_counts_are_read_by_slices_as_an_array_would(written: Path) -> None:
    truth = make_scan().counts
    with open_scan(written) as scan:
        counts = scan.counts
        assert counts.shape == truth.shape
        assert len(counts) == FRAMES
        picks: list[Any] = [3, -1, np.int64(4), slice(2, 5), slice(None, None, 3), slice(4, 1, -1), slice(9, 2)]
        picks += [[5, 2, 2], np.array([7, 1]), truth.sum(axis=(1, 2)) > truth[0].sum(), (2, slice(1, 3)), (2, 1, 4)]
        picks += [(slice(1, 3), slice(None), 2), (-1, ..., 2)]
        for pick in picks:
            np.testing.assert_array_equal(counts[pick], truth[pick], err_msg=str(pick))
        with pytest.raises(IndexError):
            counts[FRAMES]


@pytest.mark.slow
def test_counts_larger_than_memory_are_not_read_whole(tmp_path: Path) -> None:
    """A sparse scan of 1 TiB opens at once and gives a frame."""
    path = tmp_path / "huge.h5"
    write_scan(path, make_scan())
    frames = 1 << 20

    def grow(file: h5py.File) -> None:
        del file["entry/data/data"], file["entry/instrument/detector/data"]
        file["entry/data"].create_dataset("data", shape=(frames, 1024, 512), dtype="u2", chunks=(1, 1024, 512))
        attributes = file["entry/instrument/NDAttributes"]
        for name in ("PositionX", "PositionY", "NDArrayUniqueId", "NDArrayTimeStamp"):
            attributes[name].resize((frames,))
        for path in ("entry/instrument/detector/pixel_mask", "entry/ptychostream/probe"):
            del file[path]

    with open_scan(edit(path, grow)) as scan:
        assert scan.counts.shape == (frames, 1024, 512)
        assert scan.counts[frames - 1].sum() == 0


def test_whole_numbers_stored_as_floats_are_counts(written: Path) -> None:
    truth = make_scan().counts

    def to_float(file: h5py.File) -> None:
        del file["entry/data/data"], file["entry/instrument/detector/data"]
        file["entry/data/data"] = truth.astype("f4")

    with open_scan(edit(written, to_float)) as scan:
        assert scan.counts.dtype == np.uint32
        np.testing.assert_array_equal(np.asarray(scan.counts), truth)


# What the file does not say


def test_positions_under_other_names_units_and_axes(written: Path) -> None:
    truth = make_scan().positions_m

    def rename(file: h5py.File) -> None:
        attributes = file["entry/instrument/NDAttributes"]
        for old, new in (("PositionX", "SampleX"), ("PositionY", "SampleY")):
            attributes[new] = attributes[old][()] * 1e6
            del attributes[old]

    refused(edit(written, rename), "no positions: .*PositionX.*SampleX, SampleY")
    options = ScanOptions(x_name="SampleX", y_name="SampleY", axes=AxisConfig(unit="um", swap_xy=True, sign_x=-1))
    with open_scan(written, options) as scan:
        np.testing.assert_allclose(scan.positions_m[:, 0], -truth[:, 1], rtol=1e-12)
        np.testing.assert_allclose(scan.positions_m[:, 1], truth[:, 0], rtol=1e-12)

    def name_unit(file: h5py.File) -> None:
        for name in ("SampleX", "SampleY"):
            file["entry/instrument/NDAttributes"][name].attrs["units"] = "um"

    with open_scan(edit(written, name_unit), replace(options, axes=AxisConfig(sign_y=-1))) as scan:
        np.testing.assert_allclose(scan.positions_m, truth * [1, -1], rtol=1e-12)
    edit(written, lambda file: file["entry/instrument/NDAttributes/SampleX"].attrs.update(units="furlong"))
    refused(written, "unit 'furlong'", options)


def test_positions_from_the_position_group_and_from_a_route(written: Path, tmp_path: Path) -> None:
    truth = make_scan().positions_m

    def move(file: h5py.File) -> None:
        attributes = file["entry/instrument/NDAttributes"]
        del attributes["PositionX"], attributes["PositionY"]
        file["entry/positions"] = truth * 1e9
        file["entry/positions"].attrs["units"] = "nm"

    with open_scan(edit(written, move)) as scan:
        np.testing.assert_allclose(scan.positions_m, truth, rtol=1e-12)
    route = tmp_path / "route.csv"
    rows = [f"{100 + index},{x * 1e6!r},{y * 1e6!r}" for index, (x, y) in enumerate(truth.tolist())]
    route.write_text("\n".join(["id,x,y", *reversed(rows)]))
    with open_scan(written, ScanOptions(route=route, axes=AxisConfig(unit="um"))) as scan:
        np.testing.assert_allclose(scan.positions_m, truth, rtol=1e-9)
    route.write_text("\n".join(["id,x,y", *rows[1:]]))
    refused(written, "1 of 23 positions are unknown.* frame 0", ScanOptions(route=route))


def test_geometry_that_is_missing_or_overruled(written: Path) -> None:
    edit(written, lambda file: file["entry/instrument"].pop("beam"))
    assert "--energy-ev" in refused(written, "does not give energy_ev").remedy
    with open_scan(written, ScanOptions(energy_ev=8000.0, distance_m=2.0)) as scan:
        assert (scan.energy_ev, scan.distance_m, scan.detector_pixel_m) == (8000.0, 2.0, 55e-6)
    refused(written, "--distance-m says -1 m, which lies outside", ScanOptions(energy_ev=8000.0, distance_m=-1.0))


def test_time_stamps_of_area_detector_count_from_1990(written: Path) -> None:
    def as_adcore(file: h5py.File) -> None:
        stamps = file["entry/instrument/NDAttributes/NDArrayTimeStamp"]
        stamps[...] = stamps[()] - EPICS_EPOCH
        del stamps.attrs["epoch"]

    with open_scan(edit(written, as_adcore)) as scan:
        np.testing.assert_allclose(scan.times, make_scan().times, rtol=0, atol=1e-6)


def test_other_attributes_become_metadata(written: Path) -> None:
    temperatures = np.linspace(20, 21, FRAMES)
    edit(written, lambda file: file.create_dataset("entry/instrument/NDAttributes/Temperature", data=temperatures))
    with open_scan(written) as scan:
        np.testing.assert_array_equal(scan.metadata["attributes"]["Temperature"], temperatures)


# CXI and npz


@pytest.fixture
def cxi(tmp_path: Path) -> Path:
    scan = make_scan()
    path = tmp_path / "scan.cxi"
    with h5py.File(path, "w") as file:
        file["cxi_version"] = 150
        detector = file.create_group("entry_1/instrument_1/detector_1")
        detector.create_dataset("data", data=scan.counts, **hdf5plugin.LZ4())
        detector["distance"], detector["x_pixel_size"], detector["y_pixel_size"] = 0.9, 55e-6, 55e-6
        detector["mask"] = np.where(scan.bad_pixels, 8, 0) | 0x10000
        file["entry_1/instrument_1/source_1/energy"] = 10_000 * JOULE_PER_EV
        file["entry_1/data_1/data"] = h5py.SoftLink("/entry_1/instrument_1/detector_1/data")
        translation = np.column_stack([scan.positions_m, np.zeros(FRAMES)])
        file["entry_1/sample_1/geometry_1/translation"] = translation
    return path


def test_cxi(cxi: Path) -> None:
    truth = make_scan()
    with open_scan(cxi) as scan:
        expected = replace(truth, scan_id="scan", probe=None, frame_ids=None, times=None)
        assert scan.energy_ev == pytest.approx(10_000)
        assert_same(replace(scan, energy_ev=10_000.0), expected)


def test_cxi_with_its_zero_frequency_at_the_corner(cxi: Path) -> None:
    truth = make_scan()
    for options in (ScanOptions(corner=True), None):
        if options is None:
            edit(cxi, lambda file: file.create_dataset("entry_1/instrument_1/detector_1/is_fft_shifted", data=1))
        with open_scan(cxi, options) as scan:
            np.testing.assert_array_equal(scan.counts[5], np.fft.fftshift(truth.counts[5]))
            np.testing.assert_array_equal(scan.counts[3:6, 2], np.fft.fftshift(truth.counts[3:6], axes=(1, 2))[:, 2])
            assert truth.bad_pixels is not None
            np.testing.assert_array_equal(scan.bad_pixels, np.fft.fftshift(truth.bad_pixels))


def test_cxi_that_is_wrong(cxi: Path) -> None:
    edit(cxi, lambda file: file["entry_1/instrument_1/source_1/energy"].write_direct(np.array(8800.0)))
    refused(cxi, r"source_1/energy says 8800 J .*which lies outside")
    edit(cxi, lambda file: file.pop("entry_1/sample_1"))
    refused(cxi, "CXI without positions", ScanOptions(energy_ev=1e4))


def save_npz(path: Path, compressed: bool = False, **changes: Any) -> Path:
    scan = make_scan()
    arrays: dict[str, Any] = {
        "counts": scan.counts,
        "positions_m": scan.positions_m,
        "energy_ev": 1e4,
        "distance_m": 0.9,
        "detector_pixel_m": 55e-6,
        "scan_id": "scan_7",
        "bad_pixels": scan.bad_pixels,
        "probe": scan.probe,
        "frame_ids": scan.frame_ids,
        "times": scan.times,
        **changes,
    }
    (np.savez_compressed if compressed else np.savez)(path, **{k: v for k, v in arrays.items() if v is not None})
    return path


@pytest.mark.parametrize("compressed", [False, True])
def test_npz(tmp_path: Path, compressed: bool) -> None:
    path = save_npz(tmp_path / "scan.npz", compressed)
    path = path.rename(tmp_path / "a.h5")  # the name says nothing
    with open_scan(path) as scan:
        assert_same(scan, make_scan())
        assert isinstance(scan.counts._source, np.memmap) is not compressed


def test_npz_that_is_wrong(tmp_path: Path) -> None:
    path = tmp_path / "scan.npz"
    objects = np.empty(FRAMES, dtype=object)
    refused(save_npz(path, counts=objects), "Object arrays|objects")
    refused(save_npz(path, probe=objects), "Object arrays|objects")
    refused(save_npz(path, positions_m=None), "npz without positions_m")
    refused(save_npz(path, energy_ev=None), "does not give energy_ev")
    refused(save_npz(path, counts=make_scan().counts / 3), "is not a count")
    data = save_npz(path).read_bytes()
    path.write_bytes(data[: len(data) // 2])
    refused(path, "npz cannot be read")


# Bad files


def test_files_that_are_none(tmp_path: Path) -> None:
    refused(tmp_path / "missing.h5", "no such file")
    (tmp_path / "empty.h5").touch()
    refused(tmp_path / "empty.h5", "empty")
    (tmp_path / "text.h5").write_text("not a scan")
    refused(tmp_path / "text.h5", "neither HDF5 nor npz")
    refused(tmp_path, "folder without numbered files")
    with h5py.File(tmp_path / "foreign.h5", "w") as file:
        file["exchange/data"] = np.zeros((3, 4, 4), "u2")
        file["other/note"] = "no patterns"
        del file["exchange"]
    assert "other" in refused(tmp_path / "foreign.h5", "unknown layout: it has no array of patterns").remedy


def test_a_truncated_file(written: Path) -> None:
    data = written.read_bytes()
    for size in (len(data) - 1, len(data) // 2, 600, 20):
        written.write_bytes(data[:size])
        refused(written, "cut short|cannot open")


def test_a_damaged_chunk_is_told_by_its_frame(tmp_path: Path) -> None:
    path = tmp_path / "damaged.h5"
    write_scan(path, make_scan(), codec="bslz4")
    with h5py.File(path) as file:
        chunk = file["entry/data/data"].id.get_chunk_info(9)
    with path.open("r+b") as raw:
        raw.seek(chunk.byte_offset)
        raw.write(b"\xff" * chunk.size)
    with open_scan(path) as scan:
        assert scan.counts[8].shape == (HEIGHT, WIDTH)
        with pytest.raises(ScanFileError, match=r"damaged\.h5: frame 9 cannot be read"):
            scan.counts[9]
        with pytest.raises(ScanFileError, match="frames 5 to 12 cannot be read"):
            scan.counts[5:13]


def test_an_unknown_filter(tmp_path: Path, written: Path) -> None:
    with h5py.File(tmp_path / "filtered.h5", "w") as file:
        properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        properties.set_chunk((1, 4, 4))
        properties.set_filter(h5py.h5z.FILTER_SHUFFLE, h5py.h5z.FLAG_OPTIONAL)
        space = h5py.h5s.create_simple((3, 4, 4))
        group = file.create_group("entry/data")
        h5py.h5d.create(group.id, b"data", h5py.h5t.STD_U16LE, space, properties)
        file["entry/positions"] = np.zeros((3, 2))
    data = (tmp_path / "filtered.h5").read_bytes()
    # The shuffle filter's message: id 2, no name, flags 1. Make it the unregistered filter 471.
    message = (2).to_bytes(2, "little") + b"\x08\x00\x01\x00"
    found = data.find(message)
    assert found > 0
    (tmp_path / "filtered.h5").write_bytes(data[:found] + (471).to_bytes(2, "little") + data[found + 2 :])
    refused(tmp_path / "filtered.h5", "filter 471")


def resize_positions(frames: int) -> Callable[[h5py.File], None]:
    def change(file: h5py.File) -> None:
        for name in ("PositionX", "PositionY"):
            file["entry/instrument/NDAttributes"][name].resize((frames,))

    return change


def test_frames_and_positions_that_do_not_match(written: Path) -> None:
    refused(edit(written, resize_positions(20)), "23 frames but 20 positions")
    refused(edit(written, resize_positions(30)), "23 frames but 30 positions")
    edit(written, lambda file: file["entry/instrument/NDAttributes/PositionX"].resize((23,)))
    refused(written, "PositionX has 23 values but PositionY 30")


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_positions_that_are_not_finite(written: Path, value: float) -> None:
    def spoil(file: h5py.File) -> None:
        file["entry/instrument/NDAttributes/PositionY"][[4, 9]] = value

    refused(edit(written, spoil), "2 of 23 positions .* not finite, the first that of frame 4")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("data", "match"),
    [
        (np.zeros((FRAMES, HEIGHT)), r"shape \(23, 12\)"),
        (np.zeros((FRAMES, 2, HEIGHT, WIDTH), "u2"), "shape"),
        (np.zeros((0, HEIGHT, WIDTH), "u2"), "no frames"),
        (np.zeros((FRAMES, HEIGHT, WIDTH), "c8"), "type complex64"),
        (np.full((FRAMES, HEIGHT, WIDTH), 0.5), "frame 0: 0.5 is not a count"),
        (np.full((FRAMES, HEIGHT, WIDTH), np.nan), "frame 0: nan is not a count"),
        (np.full((FRAMES, HEIGHT, WIDTH), -3.0), "frame 0: -3.0 is not a count"),
    ],
)
def test_patterns_that_are_none(written: Path, data: NDArray[Any], match: str) -> None:
    def swap(file: h5py.File) -> None:
        del file["entry/data/data"], file["entry/instrument/detector/data"]
        file["entry/data/data"] = data

    refused(edit(written, swap), match)


def test_a_float_that_is_no_count_is_told_when_its_frame_is_read(written: Path) -> None:
    data = make_scan().counts.astype("f4")
    data[17, 3, 3] = 0.25

    def swap(file: h5py.File) -> None:
        del file["entry/data/data"], file["entry/instrument/detector/data"]
        file["entry/data/data"] = data

    with open_scan(edit(written, swap)) as scan:
        scan.counts[16]
        with pytest.raises(ScanFileError, match=r"frame 17: 0\.25 is not a count"):
            scan.counts[17]


def test_a_mask_or_probe_of_another_shape(written: Path) -> None:
    def spoil(file: h5py.File) -> None:
        del file["entry/instrument/detector/pixel_mask"]
        file["entry/instrument/detector/pixel_mask"] = np.zeros((3, 3))

    refused(edit(written, spoil), "bad-pixel mask has shape")
    edit(written, lambda file: file.pop("entry/instrument/detector/pixel_mask"))
    edit(written, lambda file: file.pop("entry/ptychostream/probe"))
    edit(written, lambda file: file.create_dataset("entry/ptychostream/probe", data=np.zeros((5, 5), "c8")))
    refused(written, "probe has shape")


# Writing


def writer_of(path: Path, **options: Any) -> ScanWriter:
    return ScanWriter(path, (HEIGHT, WIDTH), "u2", energy_ev=1e4, distance_m=0.9, detector_pixel_m=55e-6, **options)


def test_the_name_appears_only_when_the_file_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "scan.h5"
    with writer_of(path) as writer:
        writer.append(np.zeros((HEIGHT, WIDTH), "u2"), 0, 0.0, 0.0, 0.0)
        assert not path.exists()
        assert writer.partial.exists()
    assert [entry.name for entry in tmp_path.iterdir()] == ["scan.h5"]
    with pytest.raises(RuntimeError, match="beam lost"), writer_of(path) as writer:
        raise RuntimeError("beam lost")
    assert [entry.name for entry in tmp_path.iterdir()] == ["scan.h5"]
    with open_scan(path) as scan:
        assert len(scan) == 1


def test_frames_that_do_not_fit_are_refused_and_the_rest_kept(tmp_path: Path) -> None:
    frame = np.zeros((HEIGHT, WIDTH), "u2")
    with writer_of(tmp_path / "scan.h5") as writer:
        writer.append(frame, 0, 0.0, 0.0, 0.0)
        with pytest.raises(ScanFileError, match=r"scan\.h5: frame 1 is uint16 \(12, 15\)"):
            writer.append(frame[:, 1:], 1, 0.0, 0.0, 0.0)
        with pytest.raises(ScanFileError, match="frame 1 is float32"):
            writer.append(frame.astype("f4"), 1, 0.0, 0.0, 0.0)
        writer.append(frame, 1, 0.0, 1e-6, 0.0)
    with open_scan(tmp_path / "scan.h5") as scan:
        assert len(scan) == 2
    with pytest.raises(ScanFileError, match="closed"):
        writer.append(frame, 2, 0.0, 0.0, 0.0)
    with pytest.raises(ScanFileError, match="codec 'zip'"):
        writer_of(tmp_path / "scan.h5", codec="zip")
    with pytest.raises(ScanFileError, match="type float64"):
        ScanWriter(tmp_path / "f", (2, 2), float, energy_ev=1, distance_m=1, detector_pixel_m=1)


def test_the_buffer_of_a_detector_may_be_used_again(tmp_path: Path) -> None:
    frame = np.zeros((HEIGHT, WIDTH), "u2")
    with writer_of(tmp_path / "scan.h5") as writer:
        for index in range(5):
            frame[:] = index
            writer.append(frame, index, 0.0, index * 1e-6, 0.0)
    with open_scan(tmp_path / "scan.h5") as scan:
        assert scan.counts[:, 0, 0].tolist() == [0, 1, 2, 3, 4]


IN_CHILD = """
    import json, sys
    import numpy as np
    from ptychostream.errors import ScanFileError
    from ptychostream.scans.scan_files import ScanOptions, open_scan
    from ptychostream.scans.scan_writer import ScanWriter, write_scan
"""


def child(script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    code = textwrap.dedent(IN_CHILD) + textwrap.dedent(script)
    return subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, timeout=60, check=False
    )


@pytest.mark.slow
def test_a_file_that_is_still_being_written(tmp_path: Path) -> None:
    writer = writer_of(tmp_path / "scan.h5")
    writer.append(np.zeros((HEIGHT, WIDTH), "u2"), 0, 0.0, 0.0, 0.0)
    writer.flush()
    script = """
        try:
            with open_scan(sys.argv[1]):
                print("opened")
        except ScanFileError as error:
            print(error)
    """
    done = child(script, str(writer.partial))
    writer.abort()
    assert "scan.h5.partial: another process holds the file open" in done.stdout, done
    assert "wait" in done.stdout


@pytest.mark.slow
def test_a_reader_follows_a_file_that_area_detector_grows_by_swmr(tmp_path: Path) -> None:
    script = """
        options = ScanOptions(swmr=True, energy_ev=1e4, distance_m=1.0, detector_pixel_m=1e-4)
        with open_scan(sys.argv[1], options) as scan:
            print(json.dumps([len(scan), int(scan.counts[len(scan) - 1].sum())]))
    """
    path = tmp_path / "scan.h5"
    with h5py.File(path, "w", libver="latest") as file:
        file.create_dataset("entry/data/data", data=np.ones((3, 4, 5), "u2"), chunks=(1, 4, 5), maxshape=(None, 4, 5))
        file["entry/positions"] = np.eye(3, 2) * 1e-5
        file.swmr_mode = True
        done = child(script, str(path))
    assert json.loads(done.stdout or "null") == [3, 20], done


@pytest.mark.slow
def test_a_full_disk_is_told_and_leaves_nothing(tmp_path: Path) -> None:
    """A file-size limit stands for the full disk: the write fails in the same place."""
    script = """
        import resource
        resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))
        frame = np.random.default_rng(0).integers(0, 60000, (64, 64)).astype("u2")
        try:
            with ScanWriter(sys.argv[1], frame.shape, frame.dtype, energy_ev=1e4, distance_m=1.0,
                            detector_pixel_m=1e-4, codec=sys.argv[2]) as writer:
                for index in range(2000):
                    writer.append(frame, index, 0.0, 0.0, 0.0)
        except ScanFileError as error:
            print(error)
    """
    for codec in ("none", "bslz4"):
        done = child(script, str(tmp_path / "scan.h5"), codec)
        assert done.returncode == 0, done
        assert "scan.h5: cannot be written after" in done.stdout, done
        assert "free space" in done.stdout
        assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ScanFileError, match="cannot be written after 0 frames"):
        writer_of(tmp_path / "file" / "scan.h5")
