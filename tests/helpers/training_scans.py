"""A small simulated scan with its true object, for training tests."""

from __future__ import annotations

from functools import cache

from ptychostream.scans.scan import Reconstruction, Scan
from ptychostream.sim.diffraction import Simulation, simulate_scan
from ptychostream.sim.probe import ZonePlate

OPTICS = ZonePlate(outermost_zone_m=50e-9)


@cache
def small_scan(
    frames: int = 80, step_m: float = 200e-9, seed: int = 0, dose: float = 1e7
) -> tuple[Scan, Reconstruction]:
    """32 × 32 pixel patterns and the truth; do not change them."""
    return simulate_scan(
        Simulation(
            size=32, frames=frames, step_m=step_m, optics=OPTICS, dead_pixels=2, seed=seed, sample_seed=seed, dose=dose
        ),
        scan_id=f"small-{seed}",
    )
