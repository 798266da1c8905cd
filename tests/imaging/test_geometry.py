"""Wavelengths, object pixels and presets against tabulated values."""

from __future__ import annotations

import math

import numpy as np
import pytest

from ptychostream.errors import GeometryError
from ptychostream.imaging.geometry import PRESETS, object_pixel_m, overlap, wavelength_m


@pytest.mark.parametrize(
    ("energy_ev", "radiation", "expected_pm"),
    [
        (8047.8, "photon", 154.06),  # copper K-alpha1
        (10e3, "photon", 123.984),
        (80e3, "electron", 4.1757),  # Reimer and Kohl, table 2.2
        (100e3, "electron", 3.7014),
        (200e3, "electron", 2.5079),
        (300e3, "electron", 1.9687),
    ],
)
def test_wavelengths_are_the_tabulated_ones(energy_ev: float, radiation: str, expected_pm: float) -> None:
    assert wavelength_m(energy_ev, radiation) * 1e12 == pytest.approx(expected_pm, rel=1e-4)


def test_object_pixel_is_one_period_of_the_finest_fringe_over_the_patterns_width() -> None:
    # Two points N object pixels apart must beat with one detector pixel: sin(angle) = λ / (N · object pixel).
    pixel = object_pixel_m(10e3, 0.9, 75e-6, 128)
    assert wavelength_m(10e3) / (128 * pixel) == pytest.approx(75e-6 / 0.9)


@pytest.mark.parametrize(
    ("name", "pixel_nm"), [("26-ID Eiger2 X 500K", 11.62), ("26-ID Medipix3", 6.824), ("300 kV EMPAD", 0.01948)]
)
def test_presets(name: str, pixel_nm: float) -> None:
    preset = PRESETS[name]
    assert preset.object_pixel_m * 1e9 == pytest.approx(pixel_nm, rel=1e-3)
    assert np.less_equal(preset.pattern_shape, preset.detector_shape).all()
    assert preset.source


def test_overlap() -> None:
    assert overlap(0.0, 750e-9) == 1
    assert overlap(375e-9, 750e-9) == pytest.approx(0.5)
    assert overlap(1500e-9, 750e-9) == pytest.approx(-1)


@pytest.mark.parametrize("value", [0.0, -1.0, math.nan, math.inf])
def test_senseless_values_are_named(value: float) -> None:
    with pytest.raises(GeometryError, match="energy_ev"):
        wavelength_m(value)
    with pytest.raises(GeometryError, match="distance_m"):
        object_pixel_m(10e3, value, 75e-6, 128)
    with pytest.raises(GeometryError, match="beam"):
        overlap(1e-9, value)


def test_unknown_radiation_is_named() -> None:
    with pytest.raises(GeometryError, match="neutron"):
        wavelength_m(10e3, "neutron")
