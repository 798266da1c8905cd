"""Masters of DECTRIS detectors: frames behind numbered links, mask and saturation under detectorSpecific."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import hdf5plugin
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

RASTER: dict[str, Any] = {"scan_shape": (ROWS, COLUMNS), "scan_step_m": STEP_M}
PER_FILE = 5
WAVELENGTH = 1.2398419843320026  # angstrom at 10 keV
DETECTOR = "entry/instrument/detector"


def write_master(folder: Path, *, dtype: Any = "u4", first: int = 1, described: str = "Dectris EIGER2 Si 1M") -> Path:
    """A master and its data files, as the detector's file writer lays them out."""
    frames = patterns(dtype=dtype)
    master = folder / "series_7_master.h5"
    with h5py.File(master, "w") as file:
        data = file.create_group("entry/data")
        for number, start in enumerate(range(0, FRAMES, PER_FILE), start=1):
            name = f"series_7_data_{number:06d}.h5"
            block = frames[start : start + PER_FILE]
            with h5py.File(folder / name, "w") as part:
                stored = part.create_dataset(
                    "entry/data/data", data=block, chunks=(1, HEIGHT, WIDTH), **hdf5plugin.Bitshuffle(cname="lz4")
                )
                stored.attrs["image_nr_low"], stored.attrs["image_nr_high"] = (
                    first + start,
                    first + start + len(block) - 1,
                )
            data[f"data_{number:06d}"] = h5py.ExternalLink(name, "/entry/data/data")
        detector = file.create_group(DETECTOR)
        detector["description"] = np.bytes_(described)
        for parent, name, value, units in (
            ("entry/instrument/beam", "incident_wavelength", WAVELENGTH, "angstrom"),
            (DETECTOR, "detector_distance", 1.8, "m"),
            (DETECTOR, "x_pixel_size", 75e-6, "m"),
            (DETECTOR, "y_pixel_size", 75e-6, "m"),
            (DETECTOR, "bit_depth_image", np.uint16(32), ""),
            (DETECTOR, "saturation_value", np.int64(8352), ""),
            (f"{DETECTOR}/detectorSpecific", "countrate_correction_count_cutoff", np.uint32(8352), ""),
            (f"{DETECTOR}/detectorSpecific", "photon_energy", 9_990.0, "eV"),
        ):
            part = file.create_dataset(f"{parent}/{name}", data=value)
            if units:
                part.attrs["units"] = units
        mask = np.zeros((HEIGHT, WIDTH), np.uint32)
        for column, bit in enumerate((0, 1, 2, 3, 4, 5, 8, 31)):
            mask[2, column] = 1 << bit
        file[f"{DETECTOR}/detectorSpecific/pixel_mask"] = mask
    return master


@pytest.fixture
def master(tmp_path: Path) -> Path:
    return write_master(tmp_path)


def test_everything_of_a_master(master: Path) -> None:
    scan = read(master, **RASTER)
    assert_is(scan, patterns(dtype="u4"), raster())
    assert (scan.energy_ev, scan.distance_m, scan.detector_pixel_m) == (pytest.approx(10_000, rel=1e-6), 1.8, 75e-6)
    assert scan.radiation == "photon"
    assert scan.frame_ids is not None
    assert scan.frame_ids.tolist() == list(range(1, FRAMES + 1))
    assert scan.bad_pixels is not None
    assert np.argwhere(scan.bad_pixels).tolist() == [
        [2, column] for column in (0, 1, 2, 3, 4, 6, 7)
    ]  # bit 5: no meaning
    assert scan.said.number("saturation") == 8352
    assert scan.said.number("bit_depth") == 32


def test_a_data_file_that_is_away_is_named(master: Path) -> None:
    (master.parent / "series_7_data_000002.h5").rename(master.parent / "kept")
    error = refused(
        master, "/entry/data/data_000002 leads to the file series_7_data_000002.h5, which is not there", **RASTER
    )
    assert "copy it beside this file" in error.remedy


@pytest.mark.parametrize(
    ("frames", "dtype", "images", "said"),
    [
        (5, "u4", (16, 20), "holds images 16 to 20 after image 5"),
        (3, "u4", (6, 10), "holds images 6 to 10 after image 5, and it holds 3"),
        (5, "u2", (6, 10), "has frames of uint16"),
    ],
)
def test_a_data_file_of_another_series_or_cut_short(
    master: Path, frames: int, dtype: str, images: tuple[int, int], said: str
) -> None:
    with h5py.File(master.parent / "series_7_data_000002.h5", "r+") as file:
        del file["entry/data/data"]
        data = file.create_dataset("entry/data/data", data=patterns(frames, dtype))
        data.attrs["image_nr_low"], data.attrs["image_nr_high"] = images
    refused(master, said, **RASTER)


def test_soft_links_and_data_sets_in_the_master_itself(master: Path) -> None:
    with h5py.File(master, "r+") as file:
        del file["entry/data"]
        file["raw/first"], file["entry/data/data_000002"] = patterns()[:7], patterns()[7:]
        file["entry/data/data_000001"] = h5py.SoftLink("/raw/first")
    assert_is(read(master, **RASTER), patterns(), raster())


def test_positions_are_asked_for(master: Path) -> None:
    error = refused(master, "no positions")
    assert "--route" in error.remedy
    assert "--scan-step-m" in error.remedy
    refused(master, "5 rows of 2, but /entry/data/data_… has shape", scan_shape=(5, 2), scan_step_m=STEP_M)


def test_zero_is_what_nobody_has_set(master: Path) -> None:
    change(master, **{f"{DETECTOR}/detector_distance": 0.0, "entry/instrument/beam/incident_wavelength": 0.0})
    refused(master, "does not give energy_ev", **RASTER)
    scan = read(master, **RASTER, energy_ev=8e3, distance_m=2.0)
    assert (scan.energy_ev, scan.distance_m) == (8e3, 2.0)


def test_two_statements_of_saturation_that_differ(master: Path) -> None:
    change(master, **{f"{DETECTOR}/saturation_value": 4095})
    refused(master, "countrate_correction_count_cutoff says 8352.*saturation_value says 4095", **RASTER)


def test_an_electron_detector_says_the_voltage_as_photon_energy(tmp_path: Path) -> None:
    """As a real master of an ARINA does: no beam group, distance 0, and 300 kV under photon_energy."""
    master = write_master(tmp_path, described="Dectris ARINA CZT")
    change(
        master,
        **{
            "entry/instrument/beam/incident_wavelength": None,
            f"{DETECTOR}/detector_distance": 0.0,
            f"{DETECTOR}/detectorSpecific/photon_energy": 300_000.0,
        },
    )
    scan = read(master, **RASTER | {"scan_step_m": (2e-10, 3e-10)}, distance_m=0.115)
    assert (scan.radiation, scan.energy_ev) == ("electron", 300_000.0)


def test_thresholds_are_chosen_from(tmp_path: Path) -> None:
    master = write_master(tmp_path)
    for path in tmp_path.glob("*data_00000*.h5"):
        path.unlink()
    both = np.stack([patterns(), patterns() + 500], axis=1)
    with h5py.File(tmp_path / "series_7_data_000001.h5", "w") as file:
        file["entry/data/data"] = both[:7]
    with h5py.File(tmp_path / "series_7_data_000002.h5", "w") as file:
        file["entry/data/data"] = both[7:]
    change(master, entry__data__data_000003=None)
    error = refused(master, "has shape .12, 2, 6, 8.", **RASTER)
    assert "--pick" in error.remedy
    assert_is(read(master, **RASTER, pick=((1, 1),)), both[:, 1], raster())


def test_a_master_without_its_mask_and_one_with_a_mask_a_frame(master: Path) -> None:
    """fabio#596: SPring-8 takes the mask out of the master. definitions#651: a mask may have an axis of frames."""
    change(master, **{f"{DETECTOR}/detectorSpecific/pixel_mask": None})
    assert read(master, **RASTER).bad_pixels is None
    change(master, **{f"{DETECTOR}/pixel_mask": np.zeros((FRAMES, HEIGHT, WIDTH), np.uint32)})
    refused(master, "bad-pixel mask has shape .12, 6, 8., not .6, 8.", **RASTER)
