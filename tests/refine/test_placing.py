"""Positions that the refinement corrects: found, bounded, given up where they do not help, only once all are here."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from refine_case import SIZE, Case, case

from ptychostream.reconstruct.fft_kernels import permute
from ptychostream.reconstruct.positions import Correction, LinearMap
from ptychostream.reconstruct.search import PlaceSearch
from ptychostream.refine import placing
from ptychostream.refine.refiner import Refiner
from ptychostream.refine.status import PositionStatus, reach_px

GOOD = np.ones((SIZE, SIZE), np.bool_)


def moved(one: Case, error_px: np.ndarray) -> Case:
    """The case with other positions than the true ones, and no probe error."""
    error_m = error_px * one.truth.pixel_m
    return replace(one, scan=replace(one.scan, positions_m=one.scan.positions_m + error_m), probe=one.truth.probe)


def noise(number: int, px: float) -> np.ndarray:
    return np.random.default_rng(3).normal(0, px, (number, 2))


def fed(one: Case, kind: Correction, frames: slice = slice(None), all_here: bool = True) -> Refiner:
    refiner = one.refiner()
    for counts, place in zip(one.scan.counts[frames], one.scan.positions_m[frames], strict=True):
        refiner.add(counts, GOOD, (float(place[0]), float(place[1])))
    refiner.guide(one.network)
    refiner.correct_positions(kind, all_here=all_here)
    return refiner


def off_px(refiner: Refiner, one: Case) -> float:
    """Rms distance from the true positions, a common translation removed."""
    away = (refiner.store.positions_m[: len(refiner.store)] - one.truth.positions_m) / one.truth.pixel_m
    return float(np.sqrt(np.square(away - away.mean(axis=0)).sum(axis=1).mean()))


@pytest.mark.slow
def test_positions_are_found_and_the_image_is_better() -> None:
    one = case(100e-9, 140)
    wrong = moved(one, noise(140, 1.5))
    plain, refiner = fed(wrong, "none"), fed(wrong, "each")
    for each in (plain, refiner):
        each.passes(300)
    before, figures = plain.figures(), refiner.figures()
    assert figures.converged and figures.positions.status == PositionStatus.CORRECTED
    assert off_px(plain, one) > 1.8 and off_px(refiner, one) < 0.8
    assert figures.r_factor < 0.6 * before.r_factor
    assert one.ssim(refiner.image()) > one.ssim(plain.image()) + 0.03
    assert before.positions.status == PositionStatus.OFF and np.isnan(before.positions.rms_m)
    pixel_m = one.truth.pixel_m
    assert 1 < figures.positions.rms_m / pixel_m < 3
    assert figures.positions.largest_m <= np.sqrt(2) * figures.positions.bound_m
    assert figures.positions.bound_m == pytest.approx(reach_px(SIZE) * pixel_m)
    made = refiner.reconstruction("s", {})
    assert made.given_m is not None
    np.testing.assert_array_equal(made.given_m, wrong.scan.positions_m)
    np.testing.assert_array_equal(made.positions_m, refiner.store.positions_m[:140])
    assert made.provenance["positions"]["rms_m"] > pixel_m
    assert 2 <= made.provenance["passes_of_all"] < len(made.errors) - 60, "passes at other positions are not of these"
    assert plain.reconstruction("s", {}).given_m is None


@pytest.mark.slow
def test_one_linear_map_is_found() -> None:
    one = case(100e-9, 140)
    true_px = one.scan.positions_m / one.truth.pixel_m
    wrong = moved(one, 0.2 * (true_px - true_px.mean(axis=0)))
    refiner = fed(wrong, "global")
    before = off_px(refiner, one)
    refiner.passes(300)
    assert refiner.figures().positions.status == PositionStatus.CORRECTED
    assert off_px(refiner, one) < 0.6 * before
    given, now = (places[:140] / one.truth.pixel_m for places in (refiner.store.given_m, refiner.store.positions_m))
    assert LinearMap.between(given, now).rms_m < 1e-3, "they moved by more than one linear map"


@pytest.mark.slow
def test_right_positions_stay() -> None:
    one = case(100e-9, 140)
    right = moved(one, (one.truth.positions_m - one.scan.positions_m) / one.truth.pixel_m)
    plain, refiner = fed(right, "none"), fed(right, "each")
    for each in (plain, refiner):
        each.passes(300)
    assert off_px(refiner, one) < 0.5
    assert one.ssim(refiner.image()) > one.ssim(plain.image()) - 0.02


@pytest.mark.slow
def test_no_position_moves_farther_than_the_bound() -> None:
    error = noise(140, 1.0)
    error[70] = 2 * reach_px(SIZE), 0
    refiner = fed(moved(case(100e-9, 140), error), "each")
    refiner.passes(300)
    away = np.abs(refiner.store.positions_m[:140] - refiner.store.given_m[:140]) / refiner.pixel_m
    assert away.max() <= reach_px(SIZE) + 1e-6
    assert refiner.figures().positions.at_bound == int((away.max(axis=1) > reach_px(SIZE) - 0.5).sum())


@pytest.mark.slow
def test_they_wait_for_the_end_of_the_scan_and_for_every_frame() -> None:
    one = case(100e-9, 140)
    wrong = moved(one, noise(140, 1.5))
    refiner = fed(wrong, "each", slice(0, 139), all_here=False)
    refiner.passes(20)
    assert refiner.figures().positions.status == PositionStatus.WAITS
    np.testing.assert_array_equal(refiner.store.positions_m, refiner.store.given_m)
    refiner.passes(300)
    assert refiner.converged and not refiner.figures().converged, "an agent would take it"
    refiner.correct_positions("each", all_here=True)
    refiner.passes(30)
    assert refiner.figures().positions.status == PositionStatus.CORRECTS
    x, y = wrong.scan.positions_m[139].tolist()
    refiner.add(one.scan.counts[139], GOOD, (x, y))
    assert refiner.figures().positions.status == PositionStatus.WAITS
    refiner.correct_positions("each", all_here=True)
    refiner.passes(300)
    assert refiner.figures().positions.status == PositionStatus.CORRECTED
    assert off_px(refiner, one) < 0.8
    refiner.correct_positions("none", all_here=True)
    np.testing.assert_array_equal(refiner.store.positions_m, refiner.store.given_m)
    assert refiner.figures().positions.status == PositionStatus.OFF


compared = placing.Placing._compare


@pytest.mark.slow
def test_what_makes_nothing_better_is_given_up_and_the_last_good_image_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(placing, "SURE", 0.0)
    monkeypatch.setattr(placing.Placing, "_compare", lambda self, _: compared(self, 0.0))
    one = case(100e-9, 140)
    wrong = moved(one, noise(140, 1.5))
    refiner, plain = fed(wrong, "each"), fed(wrong, "none")
    refiner.passes(300)
    plain.passes(300)
    positions = refiner.figures().positions
    assert positions.status == PositionStatus.GIVEN_UP and "given up" in positions.message
    np.testing.assert_array_equal(refiner.store.positions_m, refiner.store.given_m)
    assert refiner.converged and refiner.figures().converged
    assert one.ssim(refiner.image()) == pytest.approx(one.ssim(plain.image()), abs=0.02)


@pytest.mark.slow
def test_a_correction_that_diverges_is_given_up_and_the_refinement_goes_on() -> None:
    one = case(100e-9, 140)
    wrong = moved(one, noise(140, 1.5))
    refiner, plain = fed(wrong, "each"), fed(wrong, "none")
    while refiner.figures().positions.status != PositionStatus.CORRECTS:
        refiner.passes(1)
    refiner.passes(5)
    refiner.field.object[:, 20:30] = np.nan
    refiner.passes(5)
    assert refiner.figures().positions.status == PositionStatus.GIVEN_UP
    assert np.isfinite(refiner.image().phase).any() and np.isfinite(refiner.field.object).all()
    refiner.passes(100)
    plain.passes(100)
    assert refiner.figures().converged and one.ssim(refiner.image()) > one.ssim(plain.image()) - 0.05


@pytest.mark.parametrize(("step_m", "frames", "why"), [(100e-9, 9, "fewer than"), (500e-9, 30, "share")])
def test_too_few_frames_and_too_little_overlap_are_told(step_m: float, frames: int, why: str) -> None:
    refiner = fed(case(step_m, frames), "each")
    refiner.passes(120)
    positions = refiner.figures().positions
    assert positions.status == PositionStatus.NOT_POSSIBLE and why in positions.message
    np.testing.assert_array_equal(refiner.store.positions_m, refiner.store.given_m)
    assert refiner.figures().converged


def test_places_are_compared_by_a_quarter_of_the_pixels_where_the_beam_is_narrow() -> None:
    """Both ways the true place has the smallest R factor; a wide beam takes every pixel."""
    size = 64
    y, x = np.indices((size, size)) - size // 2
    random = np.random.default_rng(0)
    object_ = np.exp(1j * random.normal(0, 0.5, (size + 20, size + 20)))
    planes = np.stack([object_.real, object_.imag]).astype(np.float32)
    true, places = (9, 6), np.array([[(9, 6), (9, 7), (8, 6), (4, 6)]])
    for width, side in ((5, size // 2), (25, size)):
        probe = np.exp(-(x**2 + y**2) / (2 * width**2)) * 100
        wave = probe * object_[true[0] : true[0] + size, true[1] : true[1] + size]
        amplitude = np.abs(np.fft.fft2(wave, norm="ortho")).astype(np.float32)
        search = PlaceSearch(np.stack([probe, 0 * probe]).astype(np.float32)[:, None])
        assert search.size == side
        stored = permute(amplitude[None])
        found = search.r_factors(
            search.pick(stored, np.array([0])), places, planes, np.stack([probe, 0 * probe]).astype(np.float32)[:, None]
        )
        assert found[0].argmin() == 0 and found[0, 0] < 1e-4 < 1e-3 < found[0, 1]
