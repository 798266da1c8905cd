"""The two halves of a refinement: of separate frames, without the network, and their resolution that of the sample."""

from __future__ import annotations

import numpy as np
import pytest
from refine_case import SIZE, Case, case

from ptychostream.plugins.refining.resolution import Resolution
from ptychostream.quality.frc import ring_correlation
from ptychostream.refine.refiner import Refiner


def refined(one: Case, dose: float = 1.0) -> Refiner:
    refiner = one.refiner()
    good = np.ones((SIZE, SIZE), np.bool_)
    random = np.random.default_rng(5)
    for counts, (x, y) in zip(one.scan.counts, one.scan.positions_m.tolist(), strict=True):
        refiner.add(counts if dose == 1 else random.binomial(counts, dose), good, (x, y))
    refiner.guide(one.network)
    refiner.passes(30)
    return refiner


def resolution_nm(refiner: Refiner) -> float:
    halves = refiner.half_sets()
    while not halves.work(1.0):
        pass
    return 1e9 * ring_correlation(*halves.images()).resolution_m


@pytest.mark.slow
def test_less_light_is_less_resolution() -> None:
    one = case(100e-9, 300)
    bright, dim = (resolution_nm(refined(one, dose)) for dose in (1.0, 1e-4))
    assert 1e9 * one.truth.pixel_m <= bright < 200
    assert dim > 1.5 * bright


@pytest.mark.slow
def test_the_network_takes_no_part(monkeypatch: pytest.MonkeyPatch) -> None:
    one = case(100e-9, 300)
    refiner = refined(one)
    before = refiner.image().phase.copy(), refiner.probe.copy()
    expected = resolution_nm(refiner)
    refiner.field.prior[:] = np.random.default_rng(0).normal(size=refiner.field.prior.shape)
    assert resolution_nm(refiner) == expected
    np.testing.assert_array_equal(refiner.image().phase, before[0])
    np.testing.assert_array_equal(refiner.probe, before[1])
    first, second = refiner.half_sets().images()
    assert not np.array_equal(first.weight, second.weight), "the halves have the same frames"


def test_it_is_done_in_slices_and_once() -> None:
    refiner = refined(case())
    resolution = Resolution()
    slices = 0
    while not resolution.work(refiner, 1e-4):
        slices += 1
        assert np.isnan(resolution.value_m) and resolution.pending
    assert slices > 10
    assert resolution.value_m > 0 and not resolution.pending
    assert not resolution.work(refiner, 1.0)
    resolution.forget()
    assert resolution.pending and np.isnan(resolution.value_m)


def test_few_frames_have_no_resolution() -> None:
    one = case()
    refiner = one.refiner()
    good = np.ones((SIZE, SIZE), np.bool_)
    for counts, (x, y) in zip(one.scan.counts[:5], one.scan.positions_m[:5].tolist(), strict=True):
        refiner.add(counts, good, (x, y))
    refiner.passes(2)
    resolution = Resolution()
    assert resolution.work(refiner, 1.0) and np.isnan(resolution.value_m) and not resolution.pending


def test_halves_whose_frames_hardly_overlap_have_no_resolution() -> None:
    """They share the probe, so that they would agree better than each of them does with the truth."""
    refiner = refined(case(250e-9, 140))
    assert refiner.half_sets().overlap < 0.75 < 0.95 < refined(case()).half_sets().overlap
    resolution = Resolution()
    assert resolution.work(refiner, 1e-4) and np.isnan(resolution.value_m) and not resolution.pending


def test_the_map_has_each_frame_and_shows_the_bad_one() -> None:
    one = case()
    refiner = refined(one)
    x, y, relative = refiner.residual_map()
    np.testing.assert_array_equal(np.stack([x, y], 1), refiner.store.positions_m[:120])
    assert np.median(relative) == pytest.approx(1, abs=0.02)
    mistaken = case().refiner()
    good = np.ones((SIZE, SIZE), np.bool_)
    for number, place in enumerate(one.scan.positions_m.tolist()):
        counts = one.scan.counts[100 if number == 20 else number]  # a pattern of another place
        mistaken.add(counts, good, (place[0], place[1]))
    mistaken.guide(one.network)
    mistaken.passes(20)
    relative = mistaken.residual_map()[2]
    assert int(np.argmax(relative)) == 20 and relative[20] > 2
