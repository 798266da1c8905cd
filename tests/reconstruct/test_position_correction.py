"""Corrected positions: found from the patterns, kept in the file, used for labels."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from reconstruct_case import PIXEL_M, SCAN, SIZE, make_scan, options, smooth

from ptychostream.cli.main import main
from ptychostream.errors import ReconstructionError, ScanFileError
from ptychostream.hpc_agent.corpus.training_data import Source
from ptychostream.hpc_agent.reconstruct import reconstruct
from ptychostream.reconstruct.positions import ANEW, SEARCHED, LinearMap, Positions
from ptychostream.reconstruct.wave_kernels import displacement
from ptychostream.scans.reconstruction_file import read_reconstruction, write_reconstruction
from ptychostream.scans.scan import Reconstruction, Scan
from ptychostream.scans.scan_writer import write_scan

pytestmark = pytest.mark.slow

WIDE, _, _ = make_scan(side=11)


def off_px(result: Reconstruction, true: np.ndarray) -> float:
    """Rms distance from the true positions, a common translation removed, object pixels."""
    distance = (result.positions_m - true) / result.pixel_m
    return float(np.sqrt(np.square(distance - distance.mean(axis=0)).sum(axis=1).mean()))


def turned(scan: Scan, scale: float, turn: float, shear: float) -> Scan:
    cosine, sine = np.cos(turn), np.sin(turn)
    matrix = scale * np.array([[cosine, -sine], [sine, cosine]]) @ np.array([[1, shear], [0, 1]])
    middle = scan.positions_m.mean(axis=0)
    return replace(scan, positions_m=(scan.positions_m - middle) @ matrix.T + middle)


def test_a_displacement_is_measured_from_the_change_of_the_exit_wave() -> None:
    """Where the change is that of a displaced object, the displacement is right to a few per cent."""
    y, x = np.indices((SIZE, SIZE)) - SIZE // 2
    probe = np.exp(-(x**2 + y**2) / 200 + 0.02j * x * y)
    shape = (SIZE + 8, SIZE + 8)
    spectrum = np.fft.fft2(np.exp(0.5j * smooth(shape, 5)))
    down, right = 0.3, -0.2
    ramp = np.exp(2j * np.pi * (down * np.fft.fftfreq(shape[0])[:, None] + right * np.fft.fftfreq(shape[1])))
    here, there = np.fft.ifft2(spectrum), np.fft.ifft2(spectrum * ramp)
    window = (slice(4, 4 + SIZE), slice(4, 4 + SIZE))
    change = probe * (there - here)[window]
    found = np.zeros(2)
    planes = [np.stack([part.real, part.imag]).astype(np.float32) for part in (change, probe, here)]
    displacement(planes[0][:, None], planes[1][:, None], planes[2], 4, 4, found)
    np.testing.assert_allclose(found, [down, right], atol=0.03)


def test_an_object_without_structure_displaces_nothing() -> None:
    flat, found = np.ones((2, SIZE + 2, SIZE + 2), np.float32), np.ones(2)
    wave = np.ones((2, 1, SIZE, SIZE), np.float32)
    displacement(wave, wave, flat, 1, 1, found)
    assert not found.any()


def test_scale_rotation_and_shear_are_found() -> None:
    given = turned(WIDE, 1.04, 0.03, 0.02)
    plain, result = (reconstruct(given, options(iterations=40, correct_positions=kind)) for kind in ("none", "global"))
    assert off_px(plain, WIDE.positions_m) > 1
    assert off_px(result, WIDE.positions_m) < 0.6
    assert result.r_factor < 0.85 * plain.r_factor
    found, back = result.provenance["positions"], LinearMap.between(given.positions_m, WIDE.positions_m)
    assert found["rms_m"] < 1e-3 * PIXEL_M, "they moved by more than one linear map"
    assert back.scale_x - 0.02 < found["scale_x"] < 1 - 0.4 * (1 - back.scale_x)
    assert back.rotation_rad - 0.015 < found["rotation_rad"] < 0.4 * back.rotation_rad


@pytest.mark.parametrize("kind", ["each", "both"])
def test_each_position_is_found(kind: str) -> None:
    error = np.random.default_rng(3).normal(0, 1.5 * PIXEL_M, SCAN.positions_m.shape)
    given = replace(SCAN, positions_m=SCAN.positions_m + error)
    plain, result = (reconstruct(given, options(iterations=40, correct_positions=one)) for one in ("none", kind))
    assert off_px(plain, SCAN.positions_m) > 1.8
    assert off_px(result, SCAN.positions_m) < (0.6 if kind == "each" else 1.2)
    assert result.r_factor < 0.7 * plain.r_factor
    assert np.abs(result.positions_m - given.positions_m).max() < SIZE // 4 * PIXEL_M
    common = LinearMap.between(given.positions_m, result.positions_m)
    assert (abs(common.scale_x - 1) < 1e-6) == (kind == "each")


SIDE = 20


def unmoved(iterations: int) -> tuple[Positions, np.ndarray]:
    """400 positions on a square lattice, line by line, that have not moved yet."""
    line = np.arange(float(SIDE)) * 10
    given = np.stack(np.meshgrid(line, line, indexing="ij"), axis=-1).reshape(-1, 2)
    return Positions(given, "each", 20.0, iterations=iterations), given


def moved_at_the_new_object(moved: np.ndarray, iterations: int, begins: bool) -> np.ndarray:
    """[N, 2] displacements after the iteration in which the object may begin anew."""
    positions, given = unmoved(iterations)
    for _ in range(ANEW[0]):
        assert not positions.begins_anew()
        positions.follow(np.zeros_like(given))
    positions.now = given + moved
    assert positions.begins_anew() == begins
    return positions.now - given


def test_neighbours_that_moved_together_go_back() -> None:
    group = np.zeros((SIDE, SIDE), np.bool_)
    group[16:, 8:12] = True
    inside = group.ravel()
    moved = 8.0 * np.column_stack([inside, inside])
    left = moved_at_the_new_object(moved, 60, True)
    assert np.abs(left[inside].mean(axis=0) - left[~inside].mean(axis=0)).max() < 4.5
    assert moved_at_the_new_object(moved, 20, False)[inside].min() == 8, "too few iterations are left for a new object"


def test_a_drift_stays() -> None:
    drift = np.outer(np.linspace(-1, 1, SIDE**2) ** 2, [6.0, -3.0])
    drift -= drift.mean(axis=0)
    left = moved_at_the_new_object(drift, 60, True)
    kept = np.polynomial.polynomial.polyfit(drift[:, 0], left[:, 0], 1)[1]
    assert 0.7 < kept < 1.1


def test_the_worst_frames_are_compared_over_the_whole_reach() -> None:
    positions, given = unmoved(60)
    everyone, misfits = np.arange(SIDE**2), np.full((SIDE**2, 1), 0.02)
    misfits[[5, 77], 0] = 0.2, 0.1
    for _ in range(SEARCHED[0]):
        positions.follow(np.zeros_like(given))
        assert positions.lattice() is None or positions._passes == SEARCHED[0]
        positions.choose(everyone, positions.corners[:, None], misfits)
    found = positions.lattice()
    assert found is not None
    frames, places = found
    assert frames[:2].tolist() == [5, 77] and len(frames) == 20
    away = places[0] - given[5]
    assert (away.min(), away.max()) == (-20, 20) and not away[0].any()
    there = int(np.flatnonzero((away == [20, -16]).all(axis=1))[0])
    tried = np.ones(places.shape[:2])
    tried[0, there] = 0.5
    positions.choose(frames, places, tried)
    moved = positions.now - given
    np.testing.assert_allclose(moved[5] - moved[300], [20, -16], atol=1)


def test_right_positions_stay() -> None:
    result = reconstruct(SCAN, options(iterations=20, correct_positions="each"))
    assert off_px(result, SCAN.positions_m) < 0.5
    assert result.coverage.max() == 1


def test_without_correction_they_are_those_of_the_scan() -> None:
    result = reconstruct(SCAN, options(iterations=1))
    np.testing.assert_array_equal(result.positions_m, SCAN.positions_m)
    assert result.provenance["positions"] is None


def test_positions_on_a_line_have_no_map_across_it() -> None:
    line = np.column_stack([np.arange(5.0), np.zeros(5)])
    found = LinearMap.between(line, line * [1.1, 1])
    assert found.scale_x == pytest.approx(1.1)
    assert found.scale_y == pytest.approx(1)
    assert found.rms_m < 1e-12


@pytest.mark.parametrize("engine", ["torch", "ptychi"])
def test_the_other_engines_refuse(engine: str) -> None:
    with pytest.raises(ReconstructionError, match="corrects no positions") as caught:
        reconstruct(SCAN, options(engine=engine, device="cpu", correct_positions="each"))
    assert caught.value.remedy


def test_the_file_keeps_them_and_labels_use_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Also where a frame was left out, so that the numbers of frames differ."""
    counts = SCAN.counts.copy()
    counts[7] = 0
    scan = replace(turned(SCAN, 1.03, 0, 0), counts=counts)
    path, out = tmp_path / "scan.h5", tmp_path / "out.h5"
    write_scan(path, scan)
    words = ["reconstruct", str(path), "-o", str(out), "--engine", "epie", "--correct-positions", "both", "--json"]
    assert main([*words, "--iterations", "10"]) == 0
    said = json.loads(capsys.readouterr().out)
    made = read_reconstruction(out)
    assert made.frames is not None
    assert said["positions"] == made.provenance["positions"]
    assert said["positions"]["scale_x"] < 0.995
    moved = made.positions_m - scan.positions_m[made.frames]
    assert np.abs(moved).max() > 0.5 * PIXEL_M
    at = Source(scan, made).positions_m
    np.testing.assert_array_equal(at[made.frames], made.positions_m)
    np.testing.assert_array_equal(at[7], scan.positions_m[7])
    assert main([*words, "--iterations", "1", "--initial", str(out)]) == 0  # they follow from the second on
    np.testing.assert_allclose(read_reconstruction(out).positions_m, made.positions_m, atol=1e-6 * PIXEL_M)
    assert main([*words[:-1], "--iterations", "3"]) == 0
    assert "positions corrected by" in capsys.readouterr().out


def test_a_file_whose_frames_do_not_fit_is_refused(tmp_path: Path) -> None:
    made = reconstruct(SCAN, options(iterations=1))
    for frames in (np.arange(3), np.arange(len(SCAN)) - 1):
        write_reconstruction(tmp_path / "r.h5", replace(made, frames=frames))
        with pytest.raises(ScanFileError, match="frames of"):
            read_reconstruction(tmp_path / "r.h5")
