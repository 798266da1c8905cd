"""The spread of the patches goes through a cluster as exact integers: over the wire, and added up."""

from __future__ import annotations

import numpy as np
from cluster_helpers import SIZE, canvas_of, counts_of, place_of

from ptychostream.imaging.stitching import Canvas
from ptychostream.ioc.collector.collector_slot import contract_of
from ptychostream.ioc.collector.collector_sums import merge_canvases
from ptychostream.plugins.consumer.consumer_report import EngineReport

PIXEL_M = 10e-9


def share(numbers: range, spread: bool) -> Canvas:
    canvas = Canvas(PIXEL_M, np.ones((SIZE, SIZE), np.float32), spread=spread)
    for number in numbers:
        canvas.add(counts_of(number).astype(np.float32), *place_of(number))
    return canvas


def test_the_sum_of_the_consumers_has_the_spread_of_one_canvas() -> None:
    merged, refused = merge_canvases([share(range(1, 40), True).state(), share(range(40, 90), True).state()], 10**6)
    assert not refused
    one, whole = merged.image().spread, share(range(1, 90), True).image().spread
    assert one is not None and whole is not None
    assert one.single.tobytes() == whole.single.tobytes()
    assert one.number.tobytes() == whole.number.tobytes()


def test_a_consumer_that_does_not_accumulate_it_takes_it_from_the_sum_and_leaves_the_phase() -> None:
    states = [share(range(1, 40), True).state(), share(range(40, 90), False).state()]
    for order in (states, states[::-1]):
        merged, refused = merge_canvases(order, 10**6)
        assert not refused
        image = merged.image()
        assert image.spread is None
        assert image.phase.tobytes() == canvas_of(range(1, 90)).phase.tobytes()


def test_the_collector_knows_the_calibration_of_the_consumers_model() -> None:
    told = EngineReport(name="OpenVINO", model="m", pixel_m=PIXEL_M, sigma_factor=0.5, sigma_floor_rad=0.08)
    sigma = contract_of(told).sigma
    assert sigma is not None and sigma.numbers == (0.5, 0.08)
    assert contract_of(EngineReport(name="OpenVINO", model="m", pixel_m=PIXEL_M)).sigma is None
