"""Percentiles from a histogram, and rates from totals."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ptychostream.plugins.latency import LatencyHistograms, RateMeter


@pytest.mark.slow
@given(st.lists(st.floats(2e-5, 500), min_size=1, max_size=200))
def test_percentiles_are_those_of_the_values_within_a_bin(seconds: list[float]) -> None:
    histograms = LatencyHistograms(3)
    half = len(seconds) // 2
    histograms.record([0, 2], [seconds[:half], [1.0] * half])
    histograms.record([0], [seconds[half:]])
    expected = np.percentile(seconds, [50, 95, 99], method="inverted_cdf")
    found = histograms.percentiles(50, 95, 99)
    assert found[0] == pytest.approx(expected, rel=0.012)
    assert np.isnan(found[1]).all()
    assert histograms.percentiles(50, kinds=[0])[0, 0] == found[0, 0]


def test_nothing_recorded_is_not_a_number_and_extremes_stay_inside() -> None:
    histograms = LatencyHistograms(1)
    assert math.isnan(histograms.percentiles(50)[0, 0])
    histograms.record([0], [[-1.0, 0.0, 1e9]])
    low, high = histograms.percentiles(1, 100)[0]
    assert low == pytest.approx(1e-5, rel=0.03)
    assert high == pytest.approx(1e3, rel=0.03)
    histograms.clear()
    assert math.isnan(histograms.percentiles(50)[0, 0])


def test_a_rate_is_that_of_the_window() -> None:
    meter = RateMeter(window_s=2.0)
    assert meter.rate(100.0) == 0.0
    for step in range(1, 101):
        meter.note(10, 100.0 + step / 10)
    assert meter.rate(110.0) == pytest.approx(100, rel=0.06)
    assert 0 < meter.rate(111.5) < 50
    assert meter.rate(112.2) == 0.0
    meter.note(20, 120.0)  # after a pause
    assert meter.rate(120.0) == pytest.approx(10, rel=0.06)


def test_reading_a_rate_changes_nothing() -> None:
    asked, unasked = RateMeter(), RateMeter()
    for step in range(500):
        now = 7.0 + step * 0.013
        for meter in (asked, unasked):
            meter.note(step % 3, now)
        for _ in range(step % 4):
            asked.rate(now + 0.005)
        assert asked.rate(now) == asked.rate(now) == unasked.rate(now)
