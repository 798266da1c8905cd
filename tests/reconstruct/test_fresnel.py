"""Near-field data: reconstructed by Fresnel's propagator, refused by engines without it, never made into labels."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy import ndimage

from ptychostream.cli.main import main
from ptychostream.errors import ReconstructionError
from ptychostream.hpc_agent.reconstruct import ReconstructOptions, reconstruct
from ptychostream.imaging.geometry import wavelength_m
from ptychostream.reconstruct.fresnel import transfer
from ptychostream.reconstruct.soundness import SoundnessLimits, unsound
from ptychostream.scans.reconstruction_file import read_reconstruction
from ptychostream.scans.scan import Scan
from ptychostream.scans.scan_writer import write_scan

torch.set_num_threads(1)
SIZE, PIXEL_M, ENERGY_EV, DISTANCE_M, FRAMES = 64, 1e-6, 10e3, 0.1, 60
NEAR = ReconstructOptions(propagator="fresnel", engine="torch", iterations=20, batch=4, margin=4)


def smooth(random: np.random.Generator, shape: tuple[int, int], sigma: float) -> NDArray[np.float64]:
    made = ndimage.gaussian_filter(random.normal(size=shape), sigma, mode="wrap")
    return np.asarray(made / made.std())


def near_scan(magnification: float = 1.0) -> tuple[Scan, NDArray[np.float64]]:
    """A scan through a diffuser, and the object's phase on the grid of the reconstruction, without its margin."""
    random = np.random.default_rng(3)
    shifts = random.integers(0, 17, (FRAMES, 2))  # (x, y) in object pixels
    shifts[:2] = [[0, 0], [16, 16]]
    phase = 0.4 * smooth(random, (SIZE + 16, SIZE + 16), 2.0)
    y, x = (np.indices((SIZE, SIZE)) - SIZE // 2) / SIZE
    beam = np.exp(-(((x**2 + y**2) / 0.25**2) ** 2)) * np.exp(1.5j * smooth(random, (SIZE, SIZE), 2.5))
    factor = transfer(SIZE, PIXEL_M, wavelength_m(ENERGY_EV), DISTANCE_M)
    counts = np.empty((FRAMES, SIZE, SIZE), np.uint16)
    for frame, (column, row) in enumerate(shifts):
        exit_wave = beam * np.exp(1j * phase[row : row + SIZE, column : column + SIZE])
        counts[frame] = random.poisson(2e3 * np.abs(np.fft.ifft2(np.fft.fft2(exit_wave) * factor)) ** 2)
    scan = Scan(
        "near", counts, shifts * PIXEL_M, ENERGY_EV, DISTANCE_M * magnification, PIXEL_M * magnification,
    )  # fmt: skip
    return scan, phase


@pytest.mark.slow
@pytest.mark.parametrize("magnification", [1.0, 20.0])
def test_the_object_is_found_from_near_field_patterns(magnification: float) -> None:
    scan, phase = near_scan(magnification)
    made = reconstruct(scan, NEAR.model_copy(update={"magnification": magnification}))
    assert made.pixel_m == pytest.approx(PIXEL_M)
    assert made.r_factor < 5e-3
    assert made.provenance["overlap"] > 0.9
    reach = SIZE // 2 + NEAR.margin
    row = round(-made.origin_m[1] / PIXEL_M) - reach
    assert row == 0, "the first position's patch lies at the margin"
    found = np.angle(made.object)[NEAR.margin : NEAR.margin + SIZE + 16, NEAR.margin : NEAR.margin + SIZE + 16]
    seen = slice(24, 56)  # in the beam of many positions
    assert np.corrcoef(found[seen, seen].ravel(), phase[seen, seen].ravel())[0, 1] > 0.92


@pytest.mark.slow
def test_it_makes_no_labels_and_other_engines_refuse(tmp_path: Path) -> None:
    scan, _ = near_scan()
    few = NEAR.model_copy(update={"iterations": 5})
    made = reconstruct(scan, few)
    assert "near-field data" in unsound(made, SoundnessLimits(r_factor=1.0))
    with pytest.raises(ReconstructionError, match="the epie engine computes the far field alone"):
        reconstruct(scan, few.model_copy(update={"engine": "epie"}))
    assert reconstruct(scan, few.model_copy(update={"engine": "auto"})).engine == "torch (cpu)"
    far_away = Scan("far", scan.counts, scan.positions_m, ENERGY_EV, 10.0, PIXEL_M)
    with pytest.raises(ReconstructionError, match=r"a Fresnel propagator reaches 0\.516 m"):
        reconstruct(far_away, few)


@pytest.mark.slow
def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_scan(tmp_path / "scan.h5", near_scan()[0])
    words = ["reconstruct", str(tmp_path / "scan.h5"), "-o", str(tmp_path / "r.h5"), "--iterations", "3", "--json"]
    assert main([*words, "--propagator", "fresnel"]) == 0
    assert json.loads(capsys.readouterr().out)["pixel_m"] == PIXEL_M
    assert "near-field data" in unsound(read_reconstruction(tmp_path / "r.h5"), SoundnessLimits(r_factor=1.0))


def test_the_transfer_function_is_unitary_and_goes_back() -> None:
    factor = transfer(SIZE, PIXEL_M, wavelength_m(ENERGY_EV), DISTANCE_M)
    np.testing.assert_allclose(np.abs(factor), 1, rtol=1e-6)
    there_and_back = factor * transfer(SIZE, PIXEL_M, wavelength_m(ENERGY_EV), -DISTANCE_M)
    np.testing.assert_allclose(there_and_back, 1, atol=1e-5)
