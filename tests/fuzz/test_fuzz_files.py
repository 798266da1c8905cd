"""Any bytes for a model, a contract or a scan: what can be used, or an error that says what to do."""

from __future__ import annotations

import io
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import h5py
import numpy as np
import pytest
from folders import FUZZ_FOUND as FOUND
from fuzz import contract, model_file, scan_file, scan_layouts, scan_structure
from fuzz_inputs import damaged
from hypothesis import given, settings

from ptychostream.errors import ScanFileError
from ptychostream.scans.scan_files import open_scan

TARGETS = {
    "contract": contract,
    "model_file": model_file,
    "scan_file": scan_file,
    "scan_layouts": scan_layouts,
    "scan_structure": scan_structure,
}


@pytest.mark.slow
@pytest.mark.parametrize("target", TARGETS)
def test_damaged_files_are_refused_with_a_remedy_or_can_be_used(target: str) -> None:
    check: Callable[[bytes], None] = TARGETS[target].check

    @given(damaged(list(TARGETS[target].seeds())))
    @settings(max_examples=150, deadline=None)
    def run(data: bytes) -> None:
        check(data)

    run()


@pytest.mark.slow
@pytest.mark.parametrize("target", ["contract", "model_file", "scan_file"])
def test_every_seed_is_sound(target: str) -> None:
    _check_all(TARGETS[target], [*TARGETS[target].seeds()])


@pytest.mark.parametrize("target", TARGETS)
def test_what_fuzzing_found_stays_found(target: str) -> None:
    _check_all(TARGETS[target], [path.read_bytes() for path in (FOUND / target).glob("*")])


def _check_all(target: ModuleType, inputs: list[bytes]) -> None:
    for data in inputs:
        target.check(data)


def test_the_whole_seeds_are_whole(tmp_path: Path) -> None:
    for number, data in enumerate(scan_file.seeds()):
        path = tmp_path / f"{number}"
        path.write_bytes(data)
        with open_scan(path) as scan:
            assert np.asarray(scan.counts).sum() == np.arange(48).sum()


def refused_without_memory(path: Path, match: str) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(ScanFileError, match=match), open_scan(path) as scan:
            scan.counts[0]
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 8 << 20


@pytest.mark.slow
@pytest.mark.parametrize(
    "place",
    [
        "entry/data/data", "entry/instrument/detector/pixel_mask", "entry/instrument/NDAttributes/PositionX",
        "entry/instrument/NDAttributes/odd", "entry/ptychostream/probe", "entry/ptychostream/odd", "entry/positions",
    ],
)  # fmt: skip
def test_a_small_file_that_announces_huge_arrays_is_refused(tmp_path: Path, place: str) -> None:
    path = tmp_path / "scan.h5"
    with h5py.File(path, "w") as file:
        scan_file.nexus(file)
        if place in file:
            del file[place]
        if place == "entry/positions":
            del file["entry/instrument/NDAttributes"]
        shape = {"data": (3, 1 << 20, 1 << 20), "probe": (1, 1 << 20, 1 << 20), "pixel_mask": (1 << 20, 1 << 20)}
        shape_here = shape.get(place.rsplit("/", 1)[1], (1 << 40,))
        file.create_dataset(place, shape_here, "u2", chunks=(1,) * (len(shape_here) - 1) + (4096,))
    refused_without_memory(path, "announce")


def test_a_frame_in_a_million_pieces_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "scan.h5"
    with h5py.File(path, "w") as file:
        scan_file.nexus(file)
        del file["entry/data/data"]
        file.create_dataset("entry/data/data", (3, 1024, 1024), "u2", chunks=(1, 1, 1))
    refused_without_memory(path, "pieces")


def _npy_header(shape: tuple[int, ...]) -> bytes:
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(stream, {"descr": "<u2", "fortran_order": False, "shape": shape})
    return stream.getvalue()


@pytest.mark.parametrize("member", ["counts.npy", "bad_pixels.npy", "odd.npy"])
@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2])
def test_an_npz_that_announces_huge_arrays_is_refused(tmp_path: Path, member: str, method: int) -> None:
    path = tmp_path / "scan.npz"
    np.savez(path, positions_m=np.zeros((3, 2)), energy_ev=1.0, distance_m=1.0, detector_pixel_m=1.0,
             **({} if member == "counts.npy" else {"counts": np.ones((3, 4, 4), np.uint16)}))  # fmt: skip
    with zipfile.ZipFile(path, "a", method) as archive:
        archive.writestr(member, _npy_header((3, 1 << 20, 1 << 20)) + bytes(64))
    refused_without_memory(path, "says|another way")


@pytest.mark.slow
def test_an_npz_that_unpacks_to_a_thousand_times_its_size_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "scan.npz"
    np.savez_compressed(path, positions_m=np.zeros((3, 2)), counts=np.ones((3, 4, 4), np.uint16), energy_ev=1.0,
                        distance_m=1.0, detector_pixel_m=1.0)  # fmt: skip
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive, archive.open("odd.npy", "w") as file:
        file.write(_npy_header((1 << 28,)))
        for _ in range(1 << 9):
            file.write(bytes(1 << 20))
    refused_without_memory(path, "larger than")
