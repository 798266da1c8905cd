"""The paper's instrument and samples, as settings of the simulated beamline. Pure functions.

Detector B of the hard X-ray nanoprobe at 26-ID: Eiger2 X 500K, 75 µm pixels, 0.9 m, 128 × 128 pixels; 10 keV; a donut
of 750 nm; spirals of 963 points with a step of 50 nm. Training areas are random etched shapes. The test is on letters
and other patterns that no training area has.
"""

from __future__ import annotations

import math
from typing import Any

from ptychostream.imaging.geometry import wavelength_m
from ptychostream.sim.diffraction import Simulation

SIZE = 128
STEP_M = 50e-9
TRAINING_SAMPLE = "shapes"
TEST_SAMPLES = {"letters": "letters", "raised letters": "raised", "Siemens star": "siemens"}
"""Patterns that are not in the training areas, by their name for people."""
_APART_M = 5e-6
"""From the middle of one training area to that of the next: no frame of one sees another."""
_TEST_CENTRE_M = (0.5e-6, 0.3e-6)
"""Off the middle of the Siemens star, which is blank."""
_PLAIN = Simulation()
BEAM_M = _PLAIN.optics.beam_m(wavelength_m(_PLAIN.energy_ev))
"""Outer diameter of the donut."""


def training_scan(index: int, frames: int, seed: int) -> Simulation:
    """The scan of training area `index`."""
    numbers = {"sample_seed": seed, "seed": 1000 * seed + index, "frames": frames}
    return _scan(TRAINING_SAMPLE, centre_m=(index * _APART_M, 0.0), **numbers)


def test_scan(sample: str, seed: int, *, frames: int = 963, step_m: float = STEP_M, part: float = 1.0) -> Simulation:
    """A scan of a sample, or of an area of the training's, that no training has seen, with `part` of the photons."""
    numbers = {"sample_seed": seed + 1, "seed": 1000 * seed + 999, "frames": frames}
    return _scan(sample, centre_m=_TEST_CENTRE_M, step_m=step_m, dose=_PLAIN.dose * part, **numbers)


def step_of(overlap: float) -> float:
    """Step (m) of a linear overlap 1 − step / beam."""
    return (1 - overlap) * BEAM_M


def frames_within(radius_m: float, step_m: float) -> int:
    """Frames of a spiral that covers a disk: each covers step²."""
    return max(2, math.ceil(math.pi * radius_m**2 / step_m**2))


def _scan(sample: str, **settings: Any) -> Simulation:
    return Simulation(size=SIZE, sample=sample, trajectory="spiral", **settings)
