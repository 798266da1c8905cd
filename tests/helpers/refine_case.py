"""A simulated scan with its truth, what a network would draw of it, and a probe that is a little wrong."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from training_scans import OPTICS

from ptychostream.imaging.phase_image import PhaseImage
from ptychostream.quality.quality import compare
from ptychostream.refine.refiner import Refiner
from ptychostream.scans.scan import Reconstruction, Scan
from ptychostream.sim.diffraction import Simulation, simulate_scan

SIZE = 32


@dataclass(frozen=True)
class Case:
    """Scan, truth, the network's phase on the canvas's grid, and the probe to begin with."""

    scan: Scan
    truth: Reconstruction
    network: PhaseImage
    probe: NDArray[np.complex64]

    def refiner(self, **options: int) -> Refiner:
        return Refiner(self.probe, self.truth.pixel_m, **options)  # type: ignore[arg-type]

    def ssim(self, image: PhaseImage) -> float:
        return compare(image, self.truth.phase_image()).ssim


@cache
def case(step_m: float = 150e-9, frames: int = 120, sample: str = "shapes") -> Case:
    """A beam of 450 nm, positions 10 nm off, a probe 7 % off."""
    simulation = Simulation(
        sample=sample, size=SIZE, frames=frames, step_m=step_m, optics=OPTICS, position_error_m=10e-9, dose=1e6
    )
    scan, truth = simulate_scan(simulation, scan_id=sample)
    random = np.random.default_rng(2)
    error = [ndimage.gaussian_filter(random.normal(size=truth.probe.shape), (0, 1, 1)) for _ in range(2)]
    wrong = (error[0] + 1j * error[1]) / np.std(error) * np.abs(truth.probe) * 0.07
    return Case(scan, truth, _drawn(truth.phase_image()), (truth.probe + wrong).astype(np.complex64))


def _drawn(image: PhaseImage) -> PhaseImage:
    """As a network draws it: soft, and wrong here and there."""
    known = np.isfinite(image.phase)
    phase = np.where(known, image.phase, np.nanmean(image.phase))
    noise = ndimage.gaussian_filter(np.random.default_rng(1).normal(size=phase.shape), 1.5)
    drawn = ndimage.gaussian_filter(phase, 1.0) + 0.06 * noise / noise.std()
    at = [start / image.pixel_m for start in image.origin_m]
    whole = [round(start) for start in at]
    drawn = ndimage.shift(drawn, (at[1] - whole[1], at[0] - whole[0]), order=1, mode="nearest")
    origin = (whole[0] * image.pixel_m, whole[1] * image.pixel_m)
    weight = np.where(known, image.weight, 0).astype(np.float32)
    return PhaseImage(drawn.astype(np.float32), weight, origin, image.pixel_m)
