"""Which points an adaptive scan measures next: by coverage first, then by what the pictures say."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from ptychostream.adaptive.maps import Maps, footprint, unseen
from ptychostream.adaptive.next_points import next_points

BEAM_M = 0.5e-6


def grid(side: int, step_m: float = 0.1e-6) -> NDArray[np.float64]:
    axis = (np.arange(side) - (side - 1) / 2) * step_m
    return np.stack(np.meshgrid(axis, axis), axis=-1).reshape(-1, 2)


def none_of(points: NDArray[np.float64]) -> NDArray[np.bool_]:
    return np.zeros(len(points), np.bool_)


def total(maps: Maps, points: NDArray[np.float64]) -> float:
    """Sum of the variances after these points, computed without the module that is tested."""
    weight = maps.weight.copy()
    patch = footprint(BEAM_M, maps.cell_m)
    half = patch.shape[0] // 2
    wide = np.pad(weight, half)
    for x, y in points:
        column, row = np.rint((np.array([x, y]) - maps.first_m) / maps.cell_m).astype(int)
        wide[row : row + 2 * half + 1, column : column + 2 * half + 1] += patch
    weight = wide[half:-half, half:-half]
    return float((1 / (1 / maps.prior + weight / maps.variance)).sum())


def test_without_a_picture_the_points_spread_evenly() -> None:
    points = grid(20)
    chosen = points[next_points(points, none_of(points), unseen(points, BEAM_M), BEAM_M, 25)]
    apart = np.hypot(*(chosen[:, None] - chosen[None]).transpose(2, 0, 1)) + np.eye(25)
    assert apart.min() >= 0.2e-6
    quadrants = np.sum([(chosen[:, 0] > 0) == x for x in (True, False)], axis=1)
    assert quadrants.min() >= 9


def test_more_points_go_where_the_patches_contradict_each_other() -> None:
    points = grid(24)
    maps = unseen(points, BEAM_M)
    columns = maps.first_m[0] + maps.cell_m * np.arange(maps.weight.shape[1])
    variance = np.where(columns[None] > 0, 0.09, 0.01) * np.ones_like(maps.weight)
    known = Maps(maps.first_m, maps.cell_m, np.full_like(maps.weight, 3.0), variance, 1.0)
    chosen = points[next_points(points, none_of(points), known, BEAM_M, 40)]
    assert (chosen[:, 0] > 0).mean() > 0.8


def test_points_that_nobody_has_seen_come_first() -> None:
    points = grid(20)
    maps = unseen(points, BEAM_M)
    rows = maps.first_m[1] + maps.cell_m * np.arange(maps.weight.shape[0])
    weight = np.where(rows[:, None] > 0, 0.0, 5.0) * np.ones_like(maps.weight)
    known = Maps(maps.first_m, maps.cell_m, weight, np.full_like(weight, 0.04), 1.0)
    chosen = points[next_points(points, none_of(points), known, BEAM_M, 6)]
    assert (chosen[:, 1] > 0).all()


@settings(max_examples=40, deadline=None)
@given(data=st.data(), side=st.integers(2, 7), seed=st.integers(0, 2**32 - 1))
def test_it_never_repeats_a_point_and_takes_the_best_one_first(data: st.DataObject, side: int, seed: int) -> None:
    points = grid(side, 0.17e-6)
    random = np.random.default_rng(seed)
    maps = unseen(points, BEAM_M)
    shape = maps.weight.shape
    known = Maps(maps.first_m, maps.cell_m, random.gamma(1, 2, shape), random.gamma(2, 0.02, shape) + 1e-4, 0.7)
    measured = random.random(len(points)) < 0.4
    count = data.draw(st.integers(0, len(points) + 2))
    chosen = next_points(points, measured, known, BEAM_M, count)
    assert len(chosen) == min(count, int((~measured).sum()))
    assert len(set(chosen.tolist())) == len(chosen)
    assert not measured[chosen].any()
    if len(chosen):
        sums = [total(known, points[[point]]) for point in np.flatnonzero(~measured)]
        assert total(known, points[chosen[:1]]) == pytest.approx(min(sums), rel=1e-9)


@pytest.mark.slow
@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), count=st.integers(1, 8))
def test_lazy_choice_is_the_greedy_choice(seed: int, count: int) -> None:
    """The heap saves work; it changes nothing."""
    points = grid(5, 0.2e-6)
    random = np.random.default_rng(seed)
    maps = unseen(points, BEAM_M)
    known = Maps(maps.first_m, maps.cell_m, random.gamma(1, 2, maps.weight.shape), maps.variance * 0.05, 1.0)
    chosen: list[int] = []
    for _ in range(count):
        sums = {i: total(known, points[[*chosen, i]]) for i in range(len(points)) if i not in chosen}
        chosen.append(min(sums, key=lambda i: sums[i]))
    found = next_points(points, none_of(points), known, BEAM_M, count)
    assert total(known, points[found]) == pytest.approx(total(known, points[chosen]), rel=1e-9)
