"""The simulated beamline's physics: samples, probe, trajectories, patterns."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ptychostream.errors import ConfigError, GeometryError
from ptychostream.imaging.geometry import wavelength_m
from ptychostream.sim.diffraction import Simulation, expose, intensities, set_up, simulate_scan
from ptychostream.sim.probe import ZonePlate, make_probe
from ptychostream.sim.samples import SAMPLES, Film, etch_depth
from ptychostream.sim.scans import TRAJECTORIES, Trajectory, jitter, trajectory

LAMBDA_M = wavelength_m(10_000.0)
NM = 1e-9


# ---------------------------------------------------------------- samples


@pytest.mark.slow
@pytest.mark.parametrize("name", SAMPLES)
def test_a_sample_is_etched_and_has_film_left(name: str) -> None:
    x = np.arange(-2e-6, 2e-6, 20 * NM)
    depth = etch_depth(name, x, x, seed=3)
    assert depth.shape == (200, 200)
    assert depth.min() == 0
    assert 0.9 < depth.max() <= 1
    assert 0.2 < (depth > 0.2).mean() < 0.8
    assert not np.array_equal(depth, etch_depth(name, x, x, seed=4))


@settings(max_examples=15, deadline=None)
@given(
    name=st.sampled_from(sorted(SAMPLES)),
    column=st.integers(-150, 150),
    row=st.integers(-150, 150),
    seed=st.integers(0, 2**32),
)
def test_a_sample_is_the_same_plane_through_every_window(name: str, column: int, row: int, seed: int) -> None:
    x, y = (np.arange(start, start + 60) * 20 * NM for start in (column, row))
    whole = etch_depth(name, x, y, seed)
    part = etch_depth(name, x[13:41], y[7:30], seed)
    np.testing.assert_allclose(part, whole[7:30, 13:41], atol=1e-5)


@pytest.mark.parametrize("name", ["shapes", "letters"])
def test_a_sample_does_not_repeat(name: str) -> None:
    x = np.arange(0, 8e-6, 40 * NM)
    depth = etch_depth(name, x, x, seed=1)
    for cells in (0.5e-6, 0.8e-6):
        shift = round(cells / (40 * NM))
        for axis in (0, 1):
            assert (np.roll(depth, shift, axis) != depth).mean() > 0.3


@pytest.mark.slow
@pytest.mark.parametrize("name", ["shapes", "siemens"])
def test_walls_have_their_width(name: str) -> None:
    """No shape is cut off: the depth nowhere changes faster than a wall of 15 nm does."""
    x = np.arange(-1.2e-6, 1.2e-6, 2 * NM)
    depth = etch_depth(name, x, x, seed=1)
    for axis in (0, 1):
        assert np.abs(np.diff(depth, axis=axis)).max() < 2 / 15 * 1.3


def test_a_letter_stands_upright() -> None:
    """Rows run along +y: the letter T or F … has its feet at low rows. An L has more ink low, a P more ink high."""
    from ptychostream.sim.samples import _glyph

    half = _glyph("L").shape[0] // 2
    assert _glyph("L")[:half].sum() > 1.2 * _glyph("L")[half:].sum()
    assert _glyph("P")[half:].sum() > 1.2 * _glyph("P")[:half].sum()
    assert _glyph("L")[:, :half].sum() > 1.2 * _glyph("L")[:, half:].sum()


def test_the_film_shifts_phase_and_absorbs_as_its_thickness_says() -> None:
    film = Film(thickness_m=1e-6, delta=3e-5, beta=2e-6)
    through = film.transmission(np.array([[0.0, 1.0]], np.float32), LAMBDA_M)[0]
    k = 2 * np.pi / LAMBDA_M
    assert np.angle(through[1] / through[0]) == pytest.approx(k * 3e-5 * 1e-6, rel=1e-5)
    assert abs(through[0]) == pytest.approx(np.exp(-k * 2e-6 * 1e-6), rel=1e-5)
    assert abs(through[1]) == pytest.approx(1.0)


def test_no_such_sample_or_trajectory() -> None:
    with pytest.raises(ConfigError, match=r"no sample 'moon'.*shapes"):
        etch_depth("moon", np.arange(3.0), np.arange(3.0), 0)
    with pytest.raises(ConfigError, match=r"no trajectory 'walk'.*spiral"):
        trajectory("walk", 10, 50 * NM)
    with pytest.raises(ConfigError, match="positive step"):
        trajectory("spiral", 10, 0.0)


# ---------------------------------------------------------------- probe


def test_the_probe_is_a_donut_of_the_size_that_optics_give() -> None:
    optics = ZonePlate()
    assert optics.beam_m(LAMBDA_M) == pytest.approx(750 * NM, rel=0.02)
    pixel = 11.6 * NM
    intensity = np.abs(make_probe(optics, LAMBDA_M, pixel, (128, 128))) ** 2
    assert intensity.sum() == pytest.approx(1, rel=1e-5)
    y, x = (np.mgrid[:128, :128] - 64) * pixel
    radius = np.hypot(x, y)
    beam = optics.beam_m(LAMBDA_M) / 2
    hole = beam * optics.central_stop_m / optics.diameter_m
    assert intensity[radius < 1.1 * beam].sum() > 0.9
    ring = intensity[(radius > 1.1 * hole) & (radius < 0.95 * beam)].mean()
    assert intensity[(radius > 3 * pixel) & (radius < 0.8 * hole)].mean() < 0.25 * ring


def test_focus_and_defocus_differ() -> None:
    focused = np.abs(make_probe(ZonePlate(defocus_m=0.0), LAMBDA_M, 11.6 * NM, (128, 128))) ** 2
    assert np.unravel_index(focused.argmax(), focused.shape) == (64, 64)
    y, x = np.mgrid[:128, :128] - 64
    assert focused[np.hypot(x, y) < 5].sum() > 0.5


@pytest.mark.parametrize(
    ("optics", "pixel_m", "match"),
    [
        (ZonePlate(defocus_m=500e-6), 11.6 * NM, "does not fit into a field of view"),
        (ZonePlate(), 40 * NM, "wider than the detector"),
    ],
)
def test_optics_that_do_not_fit_are_refused(optics: ZonePlate, pixel_m: float, match: str) -> None:
    with pytest.raises(GeometryError, match=match):
        make_probe(optics, LAMBDA_M, pixel_m, (128, 128))


# ---------------------------------------------------------------- trajectories


@pytest.mark.parametrize("name", TRAJECTORIES)
@pytest.mark.parametrize("frames", [1, 2, 963])
def test_a_trajectory_has_its_frames_about_the_origin(name: str, frames: int) -> None:
    path = trajectory(name, frames, 50 * NM)
    assert path.positions_m.shape == path.motion_m.shape == (frames, 2)
    assert np.isfinite(path.positions_m).all()
    if frames == 963:
        assert np.abs(path.positions_m.mean(axis=0)).max() < 30 * NM
        # each point covers step²
        width = np.sqrt(963) * 50 * NM
        assert 0.9 * width < np.ptp(path.positions_m[:, 0]) < 1.25 * width


def test_the_spirals_keep_their_step() -> None:
    spiral = trajectory("spiral", 500, 50 * NM).positions_m
    apart = np.hypot(*np.diff(spiral, axis=0).T)
    np.testing.assert_allclose(apart[8:], 50 * NM, rtol=0.03)
    for name in ("spiral", "fermat"):
        points = trajectory(name, 500, 50 * NM).positions_m
        nearest = np.sort(np.hypot(*(points[:, None] - points[None]).transpose(2, 0, 1)), axis=1)[:, 1]
        assert np.median(nearest) == pytest.approx(50 * NM, rel=0.15)


def test_a_fly_scan_moves_along_its_rows_and_back() -> None:
    path = trajectory("fly", 9, 50 * NM)
    np.testing.assert_allclose(path.positions_m[:3, 0], [-50 * NM, 0, 50 * NM], atol=1e-15)
    np.testing.assert_allclose(path.positions_m[3:6, 0], [50 * NM, 0, -50 * NM], atol=1e-15)
    np.testing.assert_allclose(path.motion_m[[0, 3], 0], [50 * NM, -50 * NM])
    assert not path.motion_m[:, 1].any()
    assert not trajectory("raster", 9, 50 * NM).motion_m.any()


def test_the_position_error_has_its_rms() -> None:
    error = jitter(np.zeros((20_000, 2)), 10 * NM, np.random.default_rng(0))
    assert np.sqrt((error**2).sum(axis=1).mean()) == pytest.approx(10 * NM, rel=0.02)


# ---------------------------------------------------------------- patterns


def test_every_photon_that_leaves_the_sample_is_expected_on_the_detector() -> None:
    bench = set_up(Simulation(frames=5, dose=1e5, film=Film(beta=0.0)))
    np.testing.assert_allclose(intensities(bench, 0, 5).sum(axis=(1, 2)), 1e5, rtol=1e-3)
    absorbing = set_up(Simulation(frames=5, dose=1e5, film=Film(beta=1e-5)))
    assert (intensities(absorbing, 0, 5).sum(axis=(1, 2)) < 0.9e5).all()


def test_counts_are_poisson_around_what_is_expected() -> None:
    bench = set_up(Simulation(frames=128, dose=2e5, seed=5))
    counts, expected = (np.concatenate(parts) for parts in zip(*expose(bench), strict=True))
    bright = expected > 5
    deviation = (counts[bright] - expected[bright]) / np.sqrt(expected[bright])
    assert abs(deviation.mean()) < 0.01
    assert deviation.var() == pytest.approx(1, rel=0.01)
    assert counts.sum() == pytest.approx(expected.sum(), rel=1e-3)


def test_zero_frequency_lies_at_the_centre_and_a_prism_shifts_the_pattern() -> None:
    bench = set_up(Simulation(frames=1, film=Film(thickness_m=0.0)))
    size = bench.settings.size

    def centroid(pattern: np.ndarray) -> tuple[float, float]:
        row, column = np.mgrid[:size, :size]
        return float((row * pattern).sum() / pattern.sum()), float((column * pattern).sum() / pattern.sum())

    assert centroid(intensities(bench, 0, 1)[0]) == pytest.approx((size // 2, size // 2), abs=0.05)
    column = np.arange(bench.object.shape[1])
    prism = np.exp(2j * np.pi * 3 * column / size).astype(np.complex64)  # phase rises along +x: 3 pixels
    pattern = intensities(replace(bench, object=bench.object * prism), 0, 1)[0]
    assert centroid(pattern) == pytest.approx((size // 2, size // 2 + 3), abs=0.2)


def test_the_truth_explains_the_patterns_by_a_forward_model_of_our_own() -> None:
    base = Simulation(frames=25, trajectory="raster", dose=1e7)
    scan, truth = simulate_scan(base.model_copy(update={"step_m": 3 * base.pixel_m}))
    size, origin = base.size, np.array(truth.origin_m)
    difference = total = 0.0
    for counts, position in zip(scan.counts, truth.positions_m, strict=True):
        column, row = np.rint((position - origin) / truth.pixel_m).astype(int) - size // 2
        exit_wave = truth.probe[0] * truth.object[row : row + size, column : column + size]
        wave = np.fft.fftshift(np.fft.fft2(exit_wave, norm="ortho"))
        measured = np.sqrt(counts.astype(float))
        difference += np.abs(measured - np.abs(wave)).sum()
        total += measured.sum()
    assert difference / total == pytest.approx(truth.r_factor, rel=0.02)
    assert truth.r_factor < 0.03


def test_positions_between_pixels_are_met() -> None:
    """A smooth object moved by a fraction of a pixel and a probe moved the other way give the same pattern."""
    bench = set_up(Simulation(frames=1))
    pixel, shape = bench.settings.pixel_m, bench.object.shape
    fraction = np.array([0.37, -0.29]) * pixel

    def smooth(shift_m: np.ndarray) -> np.ndarray:
        x = bench.origin_m[0] + np.arange(shape[1]) * pixel - shift_m[0]
        y = bench.origin_m[1] + np.arange(shape[0])[:, None] * pixel - shift_m[1]
        return np.exp(1.5j * np.exp(-((x - 100 * NM) ** 2 + y**2) / (150 * NM) ** 2)).astype(np.complex64)

    still = np.zeros((1, 2))
    centre = np.rint(-np.array(bench.origin_m) / pixel) * pixel + np.array(bench.origin_m)
    probe_moved = replace(bench, object=smooth(np.zeros(2)), path=Trajectory((centre + fraction)[None], still))
    object_moved = replace(bench, object=smooth(-fraction), path=Trajectory(centre[None], still))
    neither = replace(bench, object=smooth(np.zeros(2)), path=Trajectory(centre[None], still))
    a, b, c = (intensities(one, 0, 1)[0] for one in (probe_moved, object_moved, neither))
    assert np.abs(a - c).sum() > 0.01 * a.sum()
    assert np.abs(a - b).sum() < 0.05 * np.abs(a - c).sum()


def test_dead_pixels_read_the_maximum_and_hot_ones_too_much() -> None:
    scan, _ = simulate_scan(Simulation(frames=20, dose=1e4, dead_pixels=4, hot_pixels=3, hot_counts=5e3))
    assert scan.counts.dtype == np.uint16
    dead = (scan.counts == 65535).all(axis=0)
    hot = (scan.counts > 4000).all(axis=0) & ~dead
    assert dead.sum() == 4
    assert hot.sum() == 3
    assert scan.bad_pixels is not None
    np.testing.assert_array_equal(scan.bad_pixels, dead | hot)
    assert scan.counts[:, ~dead].max() < 65535


def test_a_saturated_pixel_stays_below_the_mark_of_a_dead_one() -> None:
    scan, _ = simulate_scan(Simulation(frames=3, dose=1e6, dtype="uint8"))
    assert scan.counts.max() == 254


def test_more_bad_pixels_than_pixels_are_refused() -> None:
    with pytest.raises(GeometryError, match="give fewer bad pixels"):
        set_up(Simulation(frames=1, dead_pixels=5000))


def test_a_fly_scan_blurs_by_the_mean_over_its_motion() -> None:
    fly = set_up(Simulation(frames=9, trajectory="fly", step_m=200 * NM, fly_samples=4, sample="siemens"))
    whole = intensities(fly, 4, 5)[0]
    mean = np.zeros_like(whole)
    for part in (-0.375, -0.125, 0.125, 0.375):
        points = fly.path.positions_m + part * fly.path.motion_m
        mean += intensities(replace(fly, path=Trajectory(points, np.zeros_like(points))), 4, 5)[0] / 4
    np.testing.assert_allclose(whole, mean, rtol=1e-3, atol=1e-3 * whole.max())
    still = intensities(replace(fly, path=Trajectory(fly.path.positions_m, np.zeros((9, 2)))), 4, 5)[0]
    assert np.abs(whole - still).sum() > 0.05 * still.sum()


def test_the_same_settings_give_the_same_scan_whatever_the_chunks() -> None:
    wanted = Simulation(frames=30, dead_pixels=2, hot_pixels=1, position_error_m=5 * NM, seed=7)
    (first, _), (again, _) = simulate_scan(wanted), simulate_scan(wanted)
    np.testing.assert_array_equal(first.counts, again.counts)
    np.testing.assert_array_equal(first.positions_m, again.positions_m)
    bench = set_up(wanted)
    np.testing.assert_array_equal(np.concatenate([counts for counts, _ in expose(bench, chunk=7)]), first.counts)
    other, _ = simulate_scan(wanted.model_copy(update={"seed": 8}))
    assert not np.array_equal(first.counts, other.counts)


def test_reported_positions_are_off_by_the_position_error() -> None:
    scan, truth = simulate_scan(Simulation(frames=400, position_error_m=20 * NM, dose=10.0))
    off = scan.positions_m - truth.positions_m
    assert np.sqrt((off**2).sum(axis=1).mean()) == pytest.approx(20 * NM, rel=0.1)


def test_a_scan_elsewhere_sees_the_same_sample() -> None:
    here = Simulation(frames=30, sample_seed=2)
    moved = here.model_copy(update={"centre_m": (10 * here.pixel_m, 0.0)})
    (_, a), (_, b) = simulate_scan(here), simulate_scan(moved)
    np.testing.assert_allclose(a.object[:, 10:], b.object[:, :-10], atol=1e-3)


def test_progress_is_told_to_the_end() -> None:
    told: list[tuple[int, int]] = []
    scan, truth = simulate_scan(Simulation(frames=100), "mine", lambda *step: told.append(step))
    assert told[-1] == (100, 100)
    assert len(told) > 1
    assert scan.scan_id == truth.scan_id == "mine"
    assert truth.phase_image().phase.shape == truth.object.shape
