"""The resolution by Fourier ring correlation: a known band limit is found, and noise does not correlate."""

from __future__ import annotations

import numpy as np
import pytest

from ptychostream.errors import GeometryError
from ptychostream.imaging.phase_image import PhaseImage
from ptychostream.quality.frc import ring_correlation

PIXEL = 10e-9


def image(cut: float, noise: float, seed: int, size: int = 160) -> PhaseImage:
    """A random phase without periods shorter than `cut` pixels, with white noise of its own."""
    spectrum = np.fft.fft2(np.random.default_rng(0).normal(size=(size, size)))
    radius = np.hypot(*np.meshgrid(np.fft.fftfreq(size), np.fft.fftfreq(size), indexing="ij"))
    phase = np.fft.ifft2(np.where(radius < 1 / cut, spectrum, 0)).real
    phase = 0.3 * phase / phase.std() + noise * np.random.default_rng(seed).normal(size=phase.shape)
    return PhaseImage(phase.astype(np.float32), np.ones(phase.shape, np.float32), (0.0, 0.0), PIXEL)


@pytest.mark.parametrize("cut", [4.0, 6.0, 10.0])
def test_a_band_limit_is_found(cut: float) -> None:
    found = ring_correlation(image(cut, 0.03, 1), image(cut, 0.03, 2))
    assert found.resolution_m == pytest.approx(0.5 * cut * PIXEL, rel=0.15)
    assert not found.at_limit
    assert found.correlation[2:5].min() > 0.9


def test_more_noise_is_less_resolution() -> None:
    resolutions = [ring_correlation(image(2.5, noise, 1), image(2.5, noise, 2)).resolution_m for noise in (0.05, 0.6)]
    assert resolutions[0] < resolutions[1]


def test_images_without_noise_are_resolved_to_the_pixel() -> None:
    found = ring_correlation(image(1.0, 0.0, 1), image(1.0, 0.0, 2))
    assert found.at_limit and found.resolution_m == PIXEL


def test_a_strip_is_too_little() -> None:
    one = image(4.0, 0.03, 1)
    weight = np.zeros_like(one.weight)
    weight[:12] = 1
    strip = PhaseImage(np.where(weight > 0, one.phase, np.nan).astype(np.float32), weight, one.origin_m, PIXEL)
    with pytest.raises(GeometryError, match="square"):
        ring_correlation(strip, strip)
