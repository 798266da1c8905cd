"""The comparison of adaptive scans with full ones: with a perfect network every way reaches the full scan's SSIM."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from tiny_model import tiny_contract

from ptychostream.benchmarks.adaptive.adaptive import FRACTIONS, judge
from ptychostream.sim.diffraction import Simulation, simulate_scan


@pytest.mark.slow
def test_a_perfect_network_needs_few_points_and_a_blind_one_is_told_apart() -> None:
    scan, truth = simulate_scan(Simulation(frames=80, step_m=150e-9))
    contract = tiny_contract(64).model_copy(update={"object_pixel_m": truth.pixel_m})
    phase = np.angle(truth.object).astype(np.float32)
    at = np.rint((scan.positions_m - np.array(truth.origin_m)) / truth.pixel_m).astype(int) - 32
    perfect = [phase[row : row + 64, column : column + 64] for column, row in at]
    done = 0

    def infer(counts: NDArray[np.float32], _dose_scale: float) -> NDArray[np.float32]:
        nonlocal done
        done += len(counts)
        return np.stack(perfect[done - len(counts) : done])

    found = judge(contract, infer, scan, truth)
    assert done == len(scan)
    assert found["full"]["ssim"] > 0.9
    assert set(found["parts"]) == {"every k-th", "even", "adaptive"}
    for part in found["parts"].values():
        assert set(part) == set(FRACTIONS)
        assert part[0.5]["ssim"] > 0.85
    blind = judge(contract, lambda counts, _: np.random.default_rng(0).random(counts.shape, np.float32), scan, truth)
    assert blind["full"]["ssim"] < 0.2
