"""Percentiles from a histogram, and rates from totals."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ptychostream.plugins.latency import LatencyHistogram, RateMeter


@given(st.lists(st.floats(2e-5, 500), min_size=1, max_size=200))
def test_percentiles_are_those_of_the_values_within_a_bin(seconds: list[float]) -> None:
    histogram = LatencyHistogram()
    half = len(seconds) // 2
    histogram.record(seconds[:half])
    histogram.record(seconds[half:])
    expected = np.percentile(seconds, [50, 95, 99], method="inverted_cdf")
    assert histogram.percentiles(50, 95, 99) == pytest.approx(tuple(expected), rel=0.012)


def test_nothing_recorded_is_not_a_number_and_extremes_stay_inside() -> None:
    histogram = LatencyHistogram()
    assert math.isnan(histogram.percentiles(50)[0])
    histogram.record([-1.0, 0.0, 1e9])  # a clock that is ahead, a driver without time
    low, high = histogram.percentiles(1, 100)
    assert low == pytest.approx(1e-5, rel=0.03)
    assert high == pytest.approx(1e3, rel=0.03)
    histogram.clear()
    assert math.isnan(histogram.percentiles(50)[0])


def test_a_rate_is_that_of_the_window() -> None:
    meter = RateMeter(window_s=2.0)
    assert meter.update(0, 100.0) == 0.0
    for step in range(1, 101):
        rate = meter.update(10 * step, 100.0 + step / 10)
    assert rate == pytest.approx(100)
    for step in range(1, 30):
        rate = meter.update(1000, 110.0 + step / 10)
    assert rate == 0.0
    assert meter.update(5, 120.0) == 0.0  # counted from zero again
    assert meter.update(25, 121.0) == pytest.approx(20)
