"""`--transpose` and `--pick`: each layout follows them, or refuses them by name. None passes over them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from layout_samples import GEOMETRY, HEIGHT, WIDTH, change, patterns, places, read, refused, write
from test_hspy_and_emd import CUBE, write_emd, write_hspy

from ptychostream.scans.exports.cxi import write_cxi
from ptychostream.scans.exports.ptychi import write_pair
from ptychostream.scans.scan import Scan
from ptychostream.scans.scan_writer import write_scan


def sample(layout: str, folder: Path, turned: bool) -> tuple[Path, dict[str, Any]]:
    """A file of the layout whose patterns are exchanged if `turned`, and the options that it needs."""
    counts = patterns()
    stored = np.ascontiguousarray(counts.transpose(0, 2, 1)) if turned else counts
    scan = Scan("s", stored, places(), 9e3, 1.5, 75e-6)
    path = folder / f"{layout}.h5"
    if layout == "nexus":
        write_scan(path, scan)
        return path, {}
    if layout == "cxi":
        write_cxi(path, scan)
        return path, {}
    if layout == "pty-chi":
        scan.probe = np.ones((1, *stored.shape[1:]), np.complex64)
        return write_pair(path, scan)[0], {}
    if layout == "npz":
        path = folder / "scan.npz"
        np.savez(
            path, counts=stored, positions_m=places(), **{key: np.float64(value) for key, value in GEOMETRY.items()}
        )
        return path, {}
    if layout == "generic":
        x, y = places().T
        return write(path, cube=stored, PositionX=x, PositionY=y), GEOMETRY
    cube = CUBE.transpose(0, 1, 3, 2) if turned else CUBE
    if layout == "hspy":
        return write_hspy(folder / "a.hspy", np.ascontiguousarray(cube)), {}
    dims = [(f"R{a}", [0, 0.3], "nm") for a in "xy"] + [(f"Q{a}", [0, 0.05], "A^-1") for a in "xy"]
    path = write_emd(folder / "a.emd", np.ascontiguousarray(cube), dims, first=0, cube_class="DataCube")
    return path, {"energy_ev": 3e5}


FOLLOW = ("nexus", "generic", "hspy", "emd")
REFUSE = ("cxi", "npz")


@pytest.mark.parametrize("layout", FOLLOW)
def test_transposed_patterns_are_turned_back(layout: str, tmp_path: Path) -> None:
    path, options = sample(layout, tmp_path, turned=True)
    np.testing.assert_array_equal(read(path, **options, transpose=True).counts, patterns())


@pytest.mark.parametrize("layout", REFUSE)
def test_a_layout_that_does_not_follow_an_option_refuses_it(layout: str, tmp_path: Path) -> None:
    path, options = sample(layout, tmp_path, turned=False)
    refused(path, "--transpose has no effect", **options, transpose=True)
    refused(path, "--pick has no effect", **options, pick=((0, 1),))
    np.testing.assert_array_equal(read(path, **options).counts, patterns())


def test_a_probe_is_not_turned_and_so_its_patterns_are_not(tmp_path: Path) -> None:
    path, _ = sample("pty-chi", tmp_path, turned=False)
    refused(path, "the file has a probe that belongs to them", transpose=True)


@pytest.mark.parametrize("layout", [*FOLLOW, "pty-chi"])
def test_an_element_that_is_not_there_is_refused(layout: str, tmp_path: Path) -> None:
    path, options = sample(layout, tmp_path, turned=False)
    refused(path, "axis 7|--pick 7", **options, pick=((7, 0),))


def test_the_mask_is_turned_with_the_patterns(tmp_path: Path) -> None:
    path, _ = sample("nexus", tmp_path, turned=True)
    mask = np.zeros((WIDTH, HEIGHT), np.uint32)
    mask[2, 1] = 1
    with h5py.File(path, "r+") as file:
        file["entry/instrument/detector/pixel_mask"] = mask
    scan = read(path, transpose=True)
    assert scan.bad_pixels is not None
    assert np.argwhere(scan.bad_pixels).tolist() == [[1, 2]]


def test_qr_flip_is_followed_by_what_its_remedy_says(tmp_path: Path) -> None:
    path, options = sample("emd", tmp_path, turned=True)
    change(path, root__metadatabundle__calibration__QR_flip=True)
    assert "--transpose" in refused(path, "pattern is flipped", **options).remedy
    np.testing.assert_array_equal(read(path, **options, transpose=True).counts, patterns())
