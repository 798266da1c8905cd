"""Every n-th pattern, evenly over the sample: no hole, no stripes, and a factor that follows the load."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.spatial import cKDTree
from simulated_flow import Simulated

from ptychostream.errors import DropCause
from ptychostream.frames.decimation import LARGEST_FACTOR, AutoFactor, Thinning, thinned
from ptychostream.frames.frames import Frame, PlacedFrame
from ptychostream.plugins.flow.decimator import DecimationSettings, Decimator
from ptychostream.plugins.pipeline import PipelineSettings

STEP_M = 50e-9
FACTORS = (2, 3, 4, 8, 16)


def raster(rows: int, columns: int, snake: bool = False, jitter: float = 0.0, seed: int = 0) -> NDArray[np.float64]:
    row, column = np.mgrid[:rows, :columns]
    if snake:
        column[1::2] = column[1::2, ::-1]
    positions = np.stack([column.ravel(), row.ravel()], axis=1).astype(float)
    return STEP_M * (positions + np.random.default_rng(seed).normal(0, jitter, positions.shape))


def spiral(frames: int) -> NDArray[np.float64]:
    index = np.arange(frames)
    radius, angle = 0.55 * STEP_M * np.sqrt(index), index * math.pi * (3 - math.sqrt(5))
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1)


def fly(rows: int, frames: int) -> NDArray[np.float64]:
    """Frames a tenth of the rows' distance apart."""
    return np.stack([np.tile(np.arange(frames) / 10, rows), np.repeat(np.arange(rows), frames)], axis=1) * STEP_M


def uneven() -> NDArray[np.float64]:
    """A raster that dwells in a corner in its middle."""
    corner = np.random.default_rng(1).uniform(0, 10 * STEP_M, (1500, 2))
    whole = raster(40, 40)
    return np.concatenate([whole[:800], corner, whole[800:]])


SCANS = {
    "raster": raster(60, 64),
    "snake": raster(50, 60, snake=True, jitter=0.2),
    "spiral": spiral(3000),
    "fly": fly(50, 500),
    "random": np.random.default_rng(2).uniform(0, 50 * STEP_M, (2500, 2)),
}


def hole(positions: NDArray[np.float64], kept: NDArray[np.bool_]) -> float:
    """Farthest that a position lies from a kept one, in steps."""
    return float(cKDTree(positions[kept]).query(positions)[0].max()) / STEP_M


@pytest.mark.slow
@pytest.mark.parametrize("factor", FACTORS)
@pytest.mark.parametrize("name", SCANS)
def test_about_one_in_n_is_kept_and_no_hole_opens(name: str, factor: int) -> None:
    positions = SCANS[name]
    kept = thinned(positions, factor)
    assert 0.6 < kept.mean() * factor < 1.1
    # the area of n positions is n steps²: a kept one every √n steps, a hole of a fly scan's row 10 times finer
    assert hole(positions, kept) < 1.5 * math.sqrt(factor) * (1 if name != "fly" else 0.5) + 0.2


@pytest.mark.parametrize("factor", [4, 8, 16])
def test_holes_are_smaller_than_those_of_every_nth_in_time(factor: int) -> None:
    """Rows of 64 are a multiple of n: in time the same columns stay, stripe by stripe."""
    positions = raster(60, 64)
    in_time = np.arange(len(positions)) % factor == 0
    assert hole(positions, thinned(positions, factor)) < 0.6 * hole(positions, in_time)


def test_dwelling_in_a_corner_brings_no_more_of_it() -> None:
    positions = uneven()
    kept = positions[thinned(positions, 4)]
    corner = (kept < 10 * STEP_M).all(axis=1).mean()
    assert corner < 2.5 * 100 / 1600  # its area; of the frames it has 51 %
    everywhere = [((kept[:, 0] // (10 * STEP_M)) == i) & ((kept[:, 1] // (10 * STEP_M)) == j)
                  for i in range(4) for j in range(4)]  # fmt: skip
    assert min(cell.sum() for cell in everywhere) >= 15


@pytest.mark.slow
@settings(max_examples=15, deadline=None)
@given(
    st.integers(2, 20),
    st.floats(1e-10, 1e-3),
    st.floats(-1e-2, 1e-2),
    st.permutations(range(4)),
    st.integers(0, 99),
)
def test_kept_ones_are_apart_and_what_is_left_out_is_near_one_in_any_scan(
    factor: int, step_m: float, offset_m: float, order: list[int], seed: int
) -> None:
    """Quarters of a jittered raster, in any order, of any size, anywhere."""
    parts = np.array_split(raster(24, 24, snake=True, jitter=0.15, seed=seed), 4)
    positions = np.concatenate([parts[i] for i in order]) / STEP_M * step_m + offset_m
    thinning = Thinning(factor)
    kept, count = np.full_like(positions, np.inf), 0
    for position in positions:
        keep = thinning.keep(float(position[0]), float(position[1]))
        nearest = np.hypot(*(kept - position).T).min()
        if keep:
            assert nearest >= 0.8 * thinning.radius_m - 1e-15
            kept[count] = position
            count += 1
        else:
            assert nearest <= thinning.radius_m * (1 + 1e-9) + 1e-15
    assert thinning.radius_m <= 1.25 * 0.95 * math.sqrt(factor) * 1.3 * step_m
    assert 0.5 < count * factor / len(positions) < 2


def test_a_stage_that_rests_is_thinned_in_time() -> None:
    assert thinned(np.zeros((100, 2)), 5).sum() == 20


def test_the_factor_changes_in_the_middle() -> None:
    positions = raster(60, 60)
    thinning = Thinning(1)
    kept = []
    for index, (x, y) in enumerate(positions):
        thinning.factor = 1 if index < 1200 else 9 if index < 2400 else 1
        kept.append(thinning.keep(float(x), float(y)))
    shares = [np.mean(part) for part in np.array_split(kept, 3)]
    assert shares[0] == shares[2] == 1
    assert 0.7 / 9 < shares[1] < 1.3 / 9
    assert hole(positions, np.array(kept)) < 4.5


# The factor that follows the load


def follow(auto: AutoFactor, start_s: float, seconds: float, load: float, use: float) -> list[int]:
    """A queue of one second's work, looked at four times a second; returns the factors."""
    factors = []
    for step in range(int(4 * seconds)):
        factors.append(auto.update(start_s + step / 4, min(max(use, 0.0), 1.0), load))
        use = min(max(use + (load / factors[-1] - 1) / 4, 0.0), 1.0)
    return factors


def test_the_factor_rises_with_the_backlog_stays_and_falls_with_the_load() -> None:
    auto = AutoFactor()
    factors = follow(auto, 0, 30, load=2.0, use=0.0)
    assert factors[0] == 1
    assert set(factors[20:]) == {3}  # 2.0 / 0.85, and no to and fro though the queue is empty
    factors = follow(auto, 30, 30, load=0.5, use=0.0)
    assert factors[-1] == 1
    assert sorted(factors, reverse=True) == factors


@pytest.mark.slow
@given(st.lists(st.tuples(st.floats(0, 2), st.floats(0, 1), st.floats(0, 500)), max_size=60))
def test_the_factor_stays_in_its_range(steps: list[tuple[float, float, float]]) -> None:
    auto, now, before = AutoFactor(), 0.0, 1
    for passed, use, load in steps:
        now += passed
        factor = auto.update(now, use, load)
        assert 1 <= factor <= LARGEST_FACTOR
        assert factor >= before or use < auto.LOWER_USE
        assert factor <= before or use > auto.RAISE_USE
        before = factor


@pytest.mark.slow
def test_auto_keeps_an_overload_from_dropping_at_random() -> None:
    """The flow in simulated time: three times what the engine does, then what it can do."""
    options = {"queue_size": 400, "decimation": {"mode": "Auto"}}
    bench = Simulated(PipelineSettings.model_validate(options), frame_s=1 / 300)
    bench.run(4.0, 900)
    full = bench.flow.ledger.dropped[DropCause.QUEUE_FULL]
    bench.latency.clear()
    bench.run(8.0, 900)
    dropped = bench.flow.ledger.dropped
    assert dropped[DropCause.QUEUE_FULL] == full
    assert dropped[DropCause.DECIMATED] > 0
    assert np.median(bench.latency) < 0.5 * 400 / 300
    assert bench.flow.decimator.factor >= 3
    bench.run(8.0, 150)
    assert bench.flow.decimator.factor == 1
    left_out = dropped[DropCause.DECIMATED]
    bench.run(2.0, 150)
    assert dropped[DropCause.DECIMATED] == left_out


def test_manual_counts_what_it_leaves_out() -> None:
    settings = PipelineSettings.model_validate({"decimation": {"mode": "Manual", "factor": 4}})
    bench = Simulated(settings, frame_s=1e-4)
    bench.run(10.0, 300)
    bench.flow.end_scan("s", bench.now)
    ledger = bench.flow.ledger
    assert ledger.received == 3000
    assert ledger.dropped[DropCause.DECIMATED] == pytest.approx(2250, rel=0.05)
    assert sum(ledger.dropped.values()) == ledger.dropped[DropCause.DECIMATED]


def test_every_run_is_thinned_on_its_own() -> None:
    decimator = Decimator(DecimationSettings(mode="Manual", factor=4))
    counts = np.ones((1, 1), np.uint8)

    def kept(run: int) -> list[bool]:
        return [
            decimator.keep(PlacedFrame(Frame("s", i, 0.0, counts, run=run), float(x), float(y)), 0.0, 0.0)
            for i, (x, y) in enumerate(raster(20, 20))
        ]

    assert kept(1) == kept(2)
    decimator.settings = DecimationSettings(mode="Off", factor=4)
    assert all(kept(3))
    assert decimator.factor == 1
