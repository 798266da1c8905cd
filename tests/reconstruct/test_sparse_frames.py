"""Sparse frames: how R is judged where it is nearly all noise, the step that follows from the dose, crop and bin."""

from __future__ import annotations

import json
import tracemalloc
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from reconstruct_case import DETECTOR_PIXEL_M, DISTANCE_M, ENERGY_EV, PIXEL_M, SIZE, make_scan, options, smooth
from scipy import fft

from ptychostream.cli.main import main
from ptychostream.errors import ReconstructionError
from ptychostream.quality.frc import ring_correlation
from ptychostream.reconstruct import fft_kernels
from ptychostream.reconstruct.options import ReconstructOptions, step_for_dose
from ptychostream.reconstruct.patterns import BAD, Patterns, Window
from ptychostream.reconstruct.run import reconstruct
from ptychostream.reconstruct.soundness import SoundnessLimits, explained, noise_r_factor, unsound
from ptychostream.scans.scan import Reconstruction, Scan
from ptychostream.scans.scan_writer import write_scan

COUNTS, SIDE, STEP_PX = 1000, 15, 2


@cache
def sparse_scan() -> Scan:
    """225 overlapping frames of 1,000 counts: 2.3 counts a pixel within the bright disk of a defocused lens."""
    random = np.random.default_rng(1)
    spots = np.stack(np.meshgrid(np.arange(SIDE), np.arange(SIDE), indexing="ij"), -1).reshape(-1, 2) * STEP_PX
    spots = spots + random.integers(-1, 2, spots.shape)
    corners = spots - spots.min(axis=0)
    truth = np.exp(0.15j * smooth(tuple(corners.max(axis=0) + SIZE), 2))
    y, x = np.indices((SIZE, SIZE)) - SIZE // 2
    lens = (np.hypot(x, y) <= 12) * np.exp(0.06j * (x**2 + y**2))
    probe = fft.fftshift(fft.ifft2(fft.ifftshift(lens), norm="ortho"))
    probe *= np.sqrt(COUNTS / (np.abs(probe) ** 2).sum())
    waves = [fft.fft2(probe * truth[r : r + SIZE, c : c + SIZE], norm="ortho") for r, c in corners]
    counts = random.poisson(fft.fftshift(np.abs(waves) ** 2, axes=(1, 2))).astype(np.uint32)
    places = spots[:, ::-1] * PIXEL_M
    first = probe.astype(np.complex64)[None]
    return Scan("sparse", counts, places, ENERGY_EV, DISTANCE_M, DETECTOR_PIXEL_M, probe=first)


@cache
def made(step: float | None = None, *, mirrored: bool = False) -> Reconstruction:
    scan = sparse_scan()
    places = scan.positions_m * np.array([-1, 1]) if mirrored else scan.positions_m
    return reconstruct(replace(scan, positions_m=places), options(iterations=15, object_step=step))


def test_a_wrong_orientation_is_found_where_r_is_nearly_all_noise() -> None:
    right, wrong = made(), made(mirrored=True)
    assert wrong.r_factor < 1.1 * right.r_factor, "R alone does not tell"
    assert unsound(right, SoundnessLimits()) == ""
    assert "of the variation is explained" in unsound(wrong, SoundnessLimits())
    assert right.provenance["explained"] > 0.003 > wrong.provenance["explained"]


def test_an_old_file_without_an_empty_objects_r_is_judged_as_before() -> None:
    old = {**made(mirrored=True).provenance}
    del old["empty_r_factor"]
    assert unsound(replace(made(mirrored=True), provenance=old), SoundnessLimits()) == ""


@pytest.mark.parametrize(("r_factor", "sound"), [(0.0222, True), (0.02389, False), (0.0240, False)])
def test_a_real_scan_whose_beam_varies_too(r_factor: float, sound: bool) -> None:
    figures = {"noise_r_factor": 0.0073, "empty_r_factor": 0.0241}
    one = replace(made(), errors=np.array([r_factor]), provenance={**made().provenance, **figures})
    assert (unsound(one, SoundnessLimits()) == "") is sound


def test_the_empty_object_has_the_variance_of_root_n() -> None:
    scan = sparse_scan()
    roots = np.sqrt(scan.counts)
    expected = roots.var(axis=0, ddof=1).sum() / scan.counts.mean(axis=0).sum()
    patterns = Patterns.read(scan)
    assert patterns.empty_r_factor == pytest.approx(expected, rel=1e-5)
    assert patterns.counts_a_pixel == pytest.approx(2.3, abs=0.1)
    assert explained(expected, patterns.empty_r_factor) == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize("rate", [0.05, 1.0, 8.0, 200.0])
def test_frames_of_nothing_but_noise_reach_the_noise_figure(rate: float) -> None:
    counts = np.random.default_rng(2).poisson(rate, (400, 32, 32)).astype(np.uint16)
    scan = Scan("flat", counts, np.zeros((400, 2)), ENERGY_EV, DISTANCE_M, DETECTOR_PIXEL_M)
    patterns = Patterns.read(scan)
    assert noise_r_factor(patterns.mean) == pytest.approx(patterns.empty_r_factor, rel=0.02)


def half_scans_agree(step: float | None) -> float:
    """Mean correlation of two half scans at periods of 7 to 25 object pixels."""
    scan, probe = sparse_scan(), made(step).probe
    images = []
    for first in (0, 1):
        half = replace(scan, counts=scan.counts[first::2], positions_m=scan.positions_m[first::2])
        images.append(reconstruct(half, options(iterations=15, object_step=step), initial_probe=probe).phase_image())
    rings = ring_correlation(*images)
    period = 1 / (rings.frequency * PIXEL_M)
    return float(rings.correlation[(period > 7) & (period < 25)].mean())


@pytest.mark.slow
def test_the_step_that_follows_from_the_dose_agrees_better_between_half_scans() -> None:
    assert made().provenance["options"]["object_step"] == step_for_dose(2.3) == 0.05
    assert half_scans_agree(None) > half_scans_agree(0.5) + 0.05


@pytest.mark.parametrize(("counts", "step"), [(0.0, 0.05), (4.0, 0.05), (10.0, 0.1), (50.0, 0.5), (1e6, 0.5)])
def test_the_step_grows_with_the_dose(counts: float, step: float) -> None:
    assert step_for_dose(counts) == pytest.approx(step)
    assert ReconstructOptions(object_step=0.3).for_dose(counts).object_step == 0.3


def wide_scan(bin_: int, border: int) -> tuple[Scan, Scan]:
    """A scan of small frames, and the same measured finer on a larger detector, with one dead pixel."""
    small = make_scan(side=7)[0]
    counts = np.asarray(small.counts, np.uint32) // bin_**2
    side = SIZE * bin_ + 2 * border
    large = np.zeros((len(counts), side, side + 6), np.uint32)
    inside = slice(border, border + SIZE * bin_)
    large[:, inside, inside] = counts.repeat(bin_, axis=1).repeat(bin_, axis=2)
    pixel = DETECTOR_PIXEL_M / bin_
    wide = Scan("wide", large, small.positions_m, ENERGY_EV, DISTANCE_M, pixel)
    return replace(small, counts=counts * bin_**2, probe=None), wide


def test_a_crop_and_bin_give_what_frames_of_this_size_give() -> None:
    small, wide = wide_scan(2, 5)
    window = options(iterations=4, crop=(5, 5, 2 * SIZE, 2 * SIZE), bin=2, defocus_m=1e-6)
    expected = reconstruct(small, options(iterations=4, defocus_m=1e-6))
    found = reconstruct(wide, window)
    assert found.pixel_m == pytest.approx(expected.pixel_m)
    np.testing.assert_allclose(found.object, expected.object, atol=1e-4)


def test_the_dose_of_sums_is_that_of_their_raw_pixels() -> None:
    small, wide = wide_scan(2, 5)
    found = reconstruct(wide, options(iterations=1, crop=(5, 5, 2 * SIZE, 2 * SIZE), bin=2, defocus_m=1e-6))
    assert found.provenance["counts_a_pixel"] == pytest.approx(Patterns.read(small).counts_a_pixel / 4)


def test_a_sum_with_a_bad_pixel_is_bad() -> None:
    _, wide = wide_scan(2, 5)
    wide.bad_pixels = np.zeros(wide.counts.shape[1:], np.bool_)
    wide.bad_pixels[5 + 2 * 10, 5 + 2 * 3 + 1] = True
    found = Patterns.read(wide, Window((5, 5, 2 * SIZE, 2 * SIZE), 2))
    bad = np.fft.fftshift(found.amplitudes[0] == BAD)
    assert np.argwhere(bad).tolist() == [[10, 3]]


@pytest.mark.parametrize(
    ("window", "what"),
    [
        (Window((0, 0, 400, 400)), "does not lie in frames"),
        (Window((5, 5, 64, 32)), "not square"),
        (Window((5, 5, 63, 63), 2), "sums of 2"),
        (Window(), "not square"),
    ],
)
def test_a_window_that_does_not_fit(window: Window, what: str) -> None:
    with pytest.raises(ReconstructionError, match=what):
        Patterns.read(wide_scan(2, 5)[1], window)


@pytest.mark.slow
def test_the_command_says_what_r_means(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scan = sparse_scan()
    wrong = replace(scan, positions_m=scan.positions_m * np.array([-1, 1]))
    for name, one in (("right", scan), ("wrong", wrong)):
        write_scan(tmp_path / f"{name}.h5", one)
        words = [
            "reconstruct",
            str(tmp_path / f"{name}.h5"),
            "-o",
            str(tmp_path / f"{name}.out.h5"),
            "--engine",
            "epie",
        ]
        assert main([*words, "--iterations", "15"]) == 0
        told = " ".join(capsys.readouterr().out.split())
        assert "an empty object has R 0.17" in told
        assert "2.25 counts a pixel, object step 0.05" in told
        assert "10 keV photons, wavelength 1.24 Å, object pixel 20 nm" in told
        assert ("not sound" in told) is (name == "wrong")
    assert main([*words, "--iterations", "15", "--json"]) == 0
    summary = json.loads(capsys.readouterr().out)
    assert summary["explained"] < 0.003 and "orientation" in summary["not_explained"]


@pytest.mark.slow
def test_memory_is_at_most_three_times_the_counts_of_two_bytes() -> None:
    scan = make_scan(side=9)[0]
    counts = np.minimum(np.tile(scan.counts, (40, 1, 1)), 60_000).astype(np.uint16)
    many = replace(scan, counts=counts, positions_m=np.tile(scan.positions_m, (40, 1)))
    reconstruct(scan, options(iterations=1))  # compiles
    tracemalloc.start()
    try:
        made = reconstruct(many, options(iterations=1))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 3 * counts.nbytes, f"{peak / counts.nbytes:.2f} times the raw bytes"
    assert made.residuals is not None and np.median(made.residuals) < 0.1, "of amplitudes in their own order"


@pytest.mark.parametrize("size", [16, 24, 60, 64])
def test_amplitudes_are_in_their_order_again(size: int) -> None:
    frames = np.random.default_rng(1).random((3, size, size)).astype(np.float32)
    before = frames.copy()
    expected = fft_kernels.permute(frames)
    assert fft_kernels.permute(frames, frames) is frames
    np.testing.assert_array_equal(frames, expected)
    fft_kernels.restore(frames)
    np.testing.assert_array_equal(frames, before)
