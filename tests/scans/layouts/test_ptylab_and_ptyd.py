"""Files of PtyLab and of ptypy: positions as (y, x), wavelength or keV, masks of good pixels."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest
from layout_samples import FRAMES, HEIGHT, WIDTH, assert_is, change, patterns, places, read, refused, write

WAVELENGTH_M = 1.2398419843320026e-10


@pytest.fixture
def ptylab(tmp_path: Path) -> Path:
    return write(
        tmp_path / "lab.hdf5", ptychogram=patterns(), encoder=places()[:, ::-1], wavelength=WAVELENGTH_M, zo=1.2,
        dxd=55e-6, Nd=WIDTH, entrancePupilDiameter=1e-6, orientation=0,
    )  # fmt: skip


def test_ptylab(ptylab: Path) -> None:
    scan = read(ptylab)
    assert_is(scan, patterns(), places())
    assert scan.energy_ev == pytest.approx(10_000)
    assert (scan.distance_m, scan.detector_pixel_m) == (1.2, 55e-6)


def test_an_encoder_of_two_rows_and_scalars_as_matlab_stores_them(ptylab: Path) -> None:
    change(ptylab, encoder=places()[:, ::-1].T, zo=[[1.2]], dxd=[[55e-6]], wavelength=[[WAVELENGTH_M]])
    assert_is(read(ptylab), patterns(), places())
    change(ptylab, encoder=np.zeros((FRAMES, 3)))
    refused(ptylab, "encoder has shape .12, 3., not .frames, 2.")


def test_what_of_ptylab_is_refused(ptylab: Path) -> None:
    change(ptylab, orientation=4)
    refused(ptylab, "its patterns are to be turned .orientation 4.")
    change(ptylab, orientation=0, zo=None, zled=0.07)
    refused(ptylab, "Fourier ptychography")


def write_ptyd(path: Path, *, link: bool = False) -> Path:
    """As ptypy's `append` and `link` write chunks: data, positions (y, x), indices, weights."""
    with h5py.File(path, "w") as file:
        for name, value in (("energy", 10.0), ("distance", 1.2), ("psize", [55e-6, 55e-6]), ("center", [3.0, 4.0])):
            file[f"meta/{name}"] = value
        file["meta/label"] = "S7"
        file["info/shape"] = [HEIGHT, WIDTH]
        for number, part in enumerate(np.array_split(np.arange(FRAMES), 11)):  # chunk 10 comes after chunk 9, not 1
            weights = np.ones((len(part), HEIGHT, WIDTH), np.uint8)
            weights[:, 1, 6] = 0
            values = {
                "data": patterns()[part], "positions": places()[part][:, ::-1], "indices": part, "weights": weights,
            }  # fmt: skip
            if not link:
                for key, value in values.items():
                    file[f"chunks/{number}/{key}"] = value
                continue
            name = f"{path.name}.part{number:03d}"
            write(path.with_name(name), **values)
            file[f"chunks/{number}"] = h5py.ExternalLink(name, "/")
    return path


@pytest.mark.parametrize("link", [False, True])
def test_ptyd(tmp_path: Path, link: bool) -> None:
    scan = read(write_ptyd(tmp_path / "s.ptyd", link=link))
    assert_is(scan, patterns(), places())
    assert (scan.energy_ev, scan.distance_m, scan.detector_pixel_m, scan.scan_id) == (10_000, 1.2, 55e-6, "S7")
    assert scan.frame_ids is not None
    assert scan.frame_ids.tolist() == list(range(FRAMES))
    assert scan.bad_pixels is not None
    assert np.argwhere(scan.bad_pixels).tolist() == [[1, 6]]


def test_a_chunk_that_is_away_is_named(tmp_path: Path) -> None:
    path = write_ptyd(tmp_path / "s.ptyd", link=True)
    (tmp_path / "s.ptyd.part003").unlink()
    refused(path, "/chunks/3 leads to the file s.ptyd.part003, which is not there")


@pytest.mark.slow
def test_what_of_a_ptyd_is_refused(tmp_path: Path) -> None:
    path = write_ptyd(tmp_path / "s.ptyd")
    change(path, meta__center=[2.9, 1.0])
    refused(path, "meta/center is .2.9, 1.0., and the patterns have shape .6, 8.")
    change(path, meta__center=None, meta__psize=[55e-6, 75e-6])
    refused(path, "height of a frame's pixel|width of a frame's pixel")
    change(path, meta__psize=55e-6)
    with h5py.File(path, "r+") as file:
        file["chunks/4/weights"][0, 0, 0] = 0
    refused(path, "chunks/4/weights: the mask of pattern 0 is another")
