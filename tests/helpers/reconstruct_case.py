"""A small scan with its true object and probe, and what a reconstruction of it is compared by."""

from __future__ import annotations

import numpy as np
from scipy import fft, ndimage

from ptychostream.config import load_settings
from ptychostream.reconstruct import gauge
from ptychostream.reconstruct.options import ReconstructOptions
from ptychostream.scans.scan import Reconstruction, Scan

SIZE, PIXEL_M = 64, 20e-9
ENERGY_EV, DISTANCE_M = 10_000.0, 1.0
DETECTOR_PIXEL_M = 1.23984198e-10 * DISTANCE_M / (SIZE * PIXEL_M)
DOSE = 1e6


def smooth(shape: tuple[int, int], seed: int) -> np.ndarray:
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).standard_normal(shape), 2.5)
    return noise / noise.std()


def beam(modes: int = 1) -> np.ndarray:
    y, x = np.indices((SIZE, SIZE)) - SIZE // 2
    first = np.exp(-(x**2 + y**2) / (2 * 7.0**2) + 1j * (x**2 + y**2) / 40)
    probe = np.stack([first, first * x / 10, first * y / 10])[:modes]
    return (probe * np.sqrt(DOSE / (np.abs(probe) ** 2).sum())).astype(np.complex64)


def make_scan(modes: int = 1, dose: float = DOSE, side: int = 9, step: int = 5) -> tuple[Scan, np.ndarray, np.ndarray]:
    """A scan on whole pixels with a jitter, its true object on the reconstruction's own grid, and its true probe."""
    random = np.random.default_rng(1)
    spots = np.stack(np.meshgrid(np.arange(side), np.arange(side), indexing="ij"), -1).reshape(-1, 2) * step
    spots = spots + random.integers(-1, 2, spots.shape)
    corners = spots - spots.min(axis=0) + ReconstructOptions().margin
    shape = tuple(corners.max(axis=0) + SIZE + ReconstructOptions().margin + 1)
    truth = ((1 - 0.05 * np.abs(smooth(shape, 3))) * np.exp(0.3j * smooth(shape, 2))).astype(np.complex64)
    probe = beam(modes) * np.float32(np.sqrt(dose / DOSE))
    patterns = [np.abs(fft.fft2(probe * truth[r : r + SIZE, c : c + SIZE], norm="ortho")) ** 2 for r, c in corners]
    counts = random.poisson(fft.fftshift(np.sum(patterns, axis=1), axes=(1, 2))).astype(np.uint32)
    scan = Scan("made", counts, spots[:, ::-1] * PIXEL_M, ENERGY_EV, DISTANCE_M, DETECTOR_PIXEL_M, probe=probe[:1])
    return scan, truth, probe


SCAN, TRUTH, PROBE = make_scan()


def options(**values: object) -> ReconstructOptions:
    return load_settings(ReconstructOptions, None, {"iterations": 12, "engine": "epie", **values})


def likeness(result: Reconstruction, truth: np.ndarray = TRUTH) -> float:
    """Pearson's r of the phase with the truth where the probe went well, constant and linear phase removed."""
    area = result.coverage > 0.2
    flat, _ = gauge.fix_gauge(truth, result.probe, result.coverage, 0, True)
    return float(np.corrcoef(np.angle(result.object[area]), np.angle(flat[area]))[0, 1])
