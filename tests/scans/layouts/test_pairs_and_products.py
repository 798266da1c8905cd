"""pty-chi's pair and ptychodus's product: written, read, and what each means by a position, a probe and a mask."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest
from layout_samples import GEOMETRY, HEIGHT, WIDTH, assert_is, change, patterns, places, read, refused, write

from ptychostream.cli.main import main
from ptychostream.errors import ScanFileError
from ptychostream.imaging.geometry import object_pixel_m, wavelength_m
from ptychostream.scans.exports.centres import object_centre, origin_of
from ptychostream.scans.exports.cxi import write_cxi
from ptychostream.scans.exports.ptychi import write_pair
from ptychostream.scans.exports.ptychodus import read_product, write_product
from ptychostream.scans.reconstruction_file import read_reconstruction, write_reconstruction
from ptychostream.scans.scan import Reconstruction, Scan
from ptychostream.scans.scan_writer import write_scan

PIXEL = object_pixel_m(9e3, 1.5, 75e-6, WIDTH)


def a_scan() -> Scan:
    random = np.random.default_rng(3)
    probe = (random.normal(size=(2, HEIGHT, WIDTH)) + 1j * random.normal(size=(2, HEIGHT, WIDTH))).astype(np.complex64)
    bad = np.zeros((HEIGHT, WIDTH), bool)
    bad[2, 5] = True
    return Scan("s7", patterns(), places(), 9e3, 1.5, 75e-6, bad_pixels=bad, probe=probe)


def a_reconstruction(scan: Scan) -> Reconstruction:
    random = np.random.default_rng(4)
    shape = (121, 140)
    image = (random.normal(size=shape) + 1j * random.normal(size=shape)).astype(np.complex64)
    assert scan.probe is not None
    return Reconstruction(
        image,
        scan.probe,
        (-3e-6, -2e-6),
        PIXEL,
        scan.positions_m,
        np.array([0.5, 0.25]),
        np.ones(shape, np.float32),
        "s7",
    )


# pty-chi


def test_a_pair_there_and_back(tmp_path: Path) -> None:
    scan = a_scan()
    written = write_pair(tmp_path / "seven.hdf5", scan)
    assert [path.name for path in written] == ["seven_dp.hdf5", "seven_para.hdf5"]
    back = read(written[0], **GEOMETRY)
    expected = patterns().copy()
    expected[:, 2, 5] = 0
    assert_is(back, expected, places())
    np.testing.assert_array_equal(back.bad_pixels, scan.bad_pixels)
    np.testing.assert_allclose(back.probe, scan.probe, rtol=1e-6)
    with h5py.File(written[1]) as file:
        assert file["object"].attrs["pixel_width_m"] == pytest.approx(PIXEL)
        assert file["probe"].shape == (1, 2, HEIGHT, WIDTH)
        power = float((np.abs(file["probe"][()]) ** 2).sum())
    assert power * HEIGHT * WIDTH == pytest.approx(float((np.abs(scan.probe) ** 2).sum()), rel=1e-5)


def test_of_a_pair_the_energy_is_asked_for_and_the_rest_follows(tmp_path: Path) -> None:
    dp, _ = write_pair(tmp_path / "seven.hdf5", a_scan())
    refused(dp, "does not give energy_ev")
    scan = read(dp, energy_ev=9e3)
    assert object_pixel_m(9e3, scan.distance_m, scan.detector_pixel_m, WIDTH) == pytest.approx(PIXEL, rel=1e-9)
    scan = read(dp, energy_ev=9e3, distance_m=1.5)
    assert scan.detector_pixel_m == pytest.approx(75e-6, rel=1e-9)
    scan = read(dp, distance_m=1.5, detector_pixel_m=75e-6)
    assert wavelength_m(scan.energy_ev) == pytest.approx(wavelength_m(9e3), rel=1e-9)
    error = refused(
        dp, "pixel_width_m says .* but energy, distance and detector pixel says", **GEOMETRY | {"distance_m": 0.9}
    )
    assert "seven_para.hdf5" in str(error)


def test_a_unit_that_contradicts_the_name_of_a_column(tmp_path: Path) -> None:
    dp, para = write_pair(tmp_path / "seven.hdf5", a_scan())
    with h5py.File(para, "r+") as file:
        file["probe_position_x_m"].attrs["units"] = "um"
    refused(dp, "probe_position_x_m says metres, as its name says, but .*@units says um", **GEOMETRY)


def test_half_a_pair(tmp_path: Path) -> None:
    dp, para = write_pair(tmp_path / "seven.hdf5", a_scan())
    assert "seven_dp.hdf5" in refused(para, "no patterns", **GEOMETRY).remedy
    para.rename(tmp_path / "kept")
    refused(dp, "its other file, seven_para.hdf5, is not there", **GEOMETRY)
    dp.rename(tmp_path / "patterns.hdf5")
    error = refused(tmp_path / "patterns.hdf5", "its name does not tell that of the other", **GEOMETRY)
    assert "--data dp" in error.remedy


def test_a_pair_of_ptychoshelves_is_no_pair_of_ptychi(tmp_path: Path) -> None:
    dp, para = write_pair(tmp_path / "seven.hdf5", a_scan())
    change(para, probe_position_x_m=None, probe_position_y_m=None, ppX=np.zeros(12), ppY=np.zeros(12))
    refused(dp, "of PtychoShelves, whose axes and signs are others", **GEOMETRY)


def test_a_pair_of_an_odd_size_or_without_a_probe_is_not_written(tmp_path: Path) -> None:
    scan = a_scan()
    scan.probe = None
    with pytest.raises(ScanFileError, match="no probe"):
        write_pair(tmp_path / "x", scan)
    scan.counts = scan.counts[:, 1:]
    with pytest.raises(ScanFileError, match=r"5 × 8.*odd sizes"):
        write_pair(tmp_path / "x", scan)
    assert list(tmp_path.iterdir()) == []


# ptychodus


@pytest.mark.parametrize("suffix", [".h5", ".npz"])
def test_a_product_there_and_back(tmp_path: Path, suffix: str) -> None:
    scan = a_scan()
    truth = a_reconstruction(scan)
    path = tmp_path / f"product{suffix}"
    write_product(path, scan, truth)
    for back in (read_product(path), read_reconstruction(path)):
        np.testing.assert_array_equal(back.object, truth.object)
        np.testing.assert_array_equal(back.probe, truth.probe)
        np.testing.assert_allclose(back.positions_m, truth.positions_m)
        np.testing.assert_allclose(back.origin_m, truth.origin_m, rtol=1e-9)
        assert back.pixel_m == pytest.approx(truth.pixel_m)
        assert back.errors.tolist() == [0.5, 0.25]
        assert back.scan_id == "s7"
        assert back.coverage.shape == back.object.shape
        assert 0 < (back.coverage > 0).mean() < 1


@pytest.mark.parametrize(("shape", "patch"), [((121, 140), (6, 8)), ((120, 141), (7, 9)), ((120, 140), (8, 7))])
def test_a_patch_covers_the_same_object_pixels_in_both_conventions(
    shape: tuple[int, int], patch: tuple[int, int]
) -> None:
    """ptychodus maps a position to (p − centre) / pixel + (N − 1) / 2, and puts the patch's (n − 1) / 2 there."""
    image, probe = np.ones(shape, np.complex64), np.ones((1, *patch), np.complex64)
    none = np.empty(0)
    ours = Reconstruction(image, probe, (-3e-6, 2e-6), 1e-8, np.zeros((1, 2)), none, image.real)
    centre = object_centre(ours)
    for axis, (size, piece) in enumerate(zip(shape[::-1], patch[::-1], strict=True)):
        place = ours.origin_m[axis] + 40 * 1e-8  # our patch's pixel n // 2 lies on object pixel 40
        theirs = (place - centre[axis]) / 1e-8 + (size - 1) / 2 - (piece - 1) / 2
        assert theirs == pytest.approx(40 - piece // 2, abs=1e-6)
    np.testing.assert_allclose(origin_of(centre, 1e-8, shape, patch), ours.origin_m)


def test_patterns_of_ptychodus_with_the_product_beside_them(tmp_path: Path) -> None:
    scan = a_scan()
    write_product(tmp_path / "product.h5", scan, a_reconstruction(scan))
    indexes = np.array([3, 0, 7, 11])
    path = write(tmp_path / "diffraction.h5", patterns=patterns()[indexes], indexes=indexes, bad_pixels=scan.bad_pixels)
    with h5py.File(path, "r+") as file:
        for name in ("detector_pixel_width_m", "detector_pixel_height_m"):
            file["patterns"].attrs[name] = 75e-6
    back = read(path)
    assert_is(back, patterns()[indexes], places()[indexes])
    assert (back.energy_ev, back.distance_m, back.detector_pixel_m, back.scan_id) == (9e3, 1.5, 75e-6, "s7")
    np.testing.assert_array_equal(back.bad_pixels, scan.bad_pixels)
    np.testing.assert_array_equal(back.probe, scan.probe)
    assert "diffraction.h5" in refused(tmp_path / "product.h5", "product of ptychodus has no patterns").remedy
    change(path, indexes=np.array([3, 0, 7, 99]))
    refused(path, "1 of 4 positions are unknown")
    (tmp_path / "product.h5").rename(tmp_path / "kept")
    refused(path, "without product.h5 beside them", **GEOMETRY)


def test_the_mask_of_a_pair_is_of_good_pixels_and_that_of_a_product_of_bad_ones(tmp_path: Path) -> None:
    dp, para = write_pair(tmp_path / "seven.hdf5", a_scan())
    with h5py.File(para) as file:
        assert not file["valid_pixel_mask"][2, 5]
        assert file["valid_pixel_mask"][()].sum() == HEIGHT * WIDTH - 1
    assert dp.exists()


# CXI


def test_cxi_there_and_back(tmp_path: Path) -> None:
    scan = a_scan()
    write_cxi(tmp_path / "seven.cxi", scan)
    back = read(tmp_path / "seven.cxi")
    assert_is(back, patterns(), places())
    assert (back.energy_ev, back.distance_m, back.detector_pixel_m) == (pytest.approx(9e3), 1.5, 75e-6)
    np.testing.assert_array_equal(back.bad_pixels, scan.bad_pixels)
    with h5py.File(tmp_path / "seven.cxi") as file:
        assert sorted(np.unique(file["entry_1/instrument_1/detector_1/mask"][()]).tolist()) == [0, 1]
        assert file["entry_1/instrument_1/source_1/energy"][()] == pytest.approx(9e3 * 1.602176634e-19)


def test_electrons_are_not_exported_as_photons(tmp_path: Path) -> None:
    scan = a_scan()
    scan.radiation, scan.energy_ev = "electron", 300e3
    write_cxi(tmp_path / "seven.cxi", scan)
    back = read(tmp_path / "seven.cxi")
    assert (back.radiation, back.energy_ev) == ("electron", pytest.approx(300e3))
    with h5py.File(tmp_path / "seven.cxi") as file:
        instrument = file["entry_1/instrument_1"]
        assert "source_1/energy" not in instrument  # a program that knows photons alone would take λ = h c / E
        assert instrument["beam_1/incident_wavelength"][()] == pytest.approx(1.9687e-12, rel=1e-4)
    with pytest.raises(ScanFileError, match="scan of electrons"):
        write_product(tmp_path / "seven.npz", scan, a_reconstruction(scan))


# The command


@pytest.mark.server
def test_export_writes_each(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scan = a_scan()
    write_scan(tmp_path / "scan.h5", scan)
    write_reconstruction(tmp_path / "rec.h5", a_reconstruction(scan))
    source = str(tmp_path / "scan.h5")
    for to, output, made in (
        ("cxi", "a.cxi", "a.cxi"), ("nexus", "a.h5", "a.h5"), ("ptychi", "a.hdf5", "a_dp.hdf5"),
        ("ptychodus", "a.npz", "a.npz"),
    ):  # fmt: skip
        words = ["export", source, "--to", to, "-o", str(tmp_path / output)]
        if to == "ptychodus":
            assert main(words) == 2
            assert "--reconstruction" in capsys.readouterr().err
        assert main([*words, "--reconstruction", str(tmp_path / "rec.h5")]) == 0
        assert made in capsys.readouterr().out
        assert (tmp_path / made).exists()
    assert_is(read(tmp_path / "a.h5"), patterns(), places())
