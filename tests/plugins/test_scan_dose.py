"""The dose scale is chosen once for each scan, from its first frames, and every patch of the scan has it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from ptychostream.frames.frames import Frame
from ptychostream.model.contract import ModelContract
from ptychostream.plugins.engines.plain import PlainEngine
from ptychostream.plugins.pipeline import Pipeline, PipelineSettings
from ptychostream.plugins.scan_dose import ScanDose
from ptychostream.positions.positions import AttributePositions

SIZE = 8
sums = st.floats(1e-3, 1e9)


def automatic(**options: Any) -> ScanDose:
    dose = ScanDose(**options)
    dose.automatic = True
    return dose


@pytest.mark.slow
@given(st.lists(st.lists(sums, min_size=1, max_size=7), min_size=1, max_size=9), sums)
def test_a_scan_has_one_scale_once_its_first_frames_are_known(batches: list[list[float]], trained: float) -> None:
    dose = automatic(frames=8, limits=(1e-300, 1e300))
    scales = []
    for batch in batches:
        dose.note(1, batch)
        if not dose.wants(1):
            scales.append(dose.scale(1, trained, 0.0))
    first = [value for batch in batches for value in batch][:8]
    assert len(set(scales)) <= 1
    assert dose.scale(1, trained, 0.0) == pytest.approx(trained / float(np.median(first)))


@given(st.lists(sums, min_size=9, max_size=9), st.lists(st.sampled_from([0.0, math.nan, math.inf, -1.0]), max_size=30))
def test_frames_without_counts_say_nothing(good: list[float], bad: list[float]) -> None:
    told, clean = automatic(frames=9), automatic(frames=9)
    told.note(1, [*bad, *good])
    clean.note(1, good)
    assert told.scale(1, 100.0, 0.0) == clean.scale(1, 100.0, 0.0)


def test_a_few_odd_frames_do_not_set_the_scale_of_a_scan() -> None:
    dose = automatic(frames=9)
    dose.note(1, [1.0, 2.0, 1000.0, 1010.0, 990.0, 1000.0, 1e9, 995.0, 1005.0])  # shutter opening, one spike
    assert dose.scale(1, 2000.0, 0.0) == pytest.approx(2.0)


@pytest.mark.parametrize(
    ("trained", "counts", "expected"),
    [(1e3, 250.0, 4.0), (1e3, 1e-9, 100.0), (1e-9, 1e9, 0.01), (None, 10.0, 7.0), (0.0, 1.0, 7.0), (10.0, 0.0, 7.0)],
)
def test_the_scale_brings_counts_to_those_of_training(trained: float | None, counts: float, expected: float) -> None:
    dose = automatic(limits=(0.01, 100.0))
    dose.note(3, [counts])
    assert dose.scale(3, trained, 7.0) == expected
    assert dose.newest_scale(trained, 7.0) == expected


def test_late_frames_have_the_scale_of_their_own_scan_and_show_nothing() -> None:
    dose = automatic(frames=2)
    dose.note(1, [10.0])
    dose.note(2, [20.0])
    dose.note(1, [10.0])
    counts = np.full((3, 2, 2), 100.0, np.float32)
    assert dose.choose(1, 100.0, 1.0, counts) == 10.0
    assert dose.newest_scale(100.0, 1.0) == 5.0


def test_by_hand_nothing_is_chosen_and_automatic_begins_anew() -> None:
    dose = automatic(frames=1)
    dose.note(1, [10.0])
    dose.automatic = False
    assert dose.scale(1, 100.0, 3.0) == 3.0
    assert not dose.wants(1)
    dose.automatic = True
    assert dose.wants(1)
    assert dose.scale(1, 100.0, 3.0) == 3.0


def test_memory_is_bounded() -> None:
    dose = automatic()
    for run in range(10_000):
        dose.note(run, [1.0] * 100)
    assert len(dose._sums) < 100
    assert all(len(seen) <= 16 for seen in dose._sums.values())


class Noting(PlainEngine):
    """Notes with which scale each frame came."""

    def __init__(self) -> None:
        super().__init__((SIZE, SIZE), 4)
        self.scales: list[float] = []

    def infer(self, counts: NDArray[np.float32], dose_scale: float = 1.0) -> NDArray[np.float32]:
        self.scales += [dose_scale] * len(counts)
        return super().infer(counts, dose_scale)


@pytest.fixture
def running() -> Iterator[tuple[Pipeline, Noting]]:
    pipeline = Pipeline(PipelineSettings(batch=4, max_latency_s=0.001), AttributePositions("x", "y"))
    engine = Noting()
    contract = ModelContract(
        name="plain", input_shape=(SIZE, SIZE), output_shape=(SIZE, SIZE), object_pixel_m=1e-8, mean_counts=6400.0
    )
    pipeline.start()
    pipeline.swap_engine(lambda: engine, contract).result(10)
    engine.scales.clear()
    yield pipeline, engine
    assert pipeline.stop(10)


def submit(pipeline: Pipeline, scan: str, values: list[int], first: int = 0) -> None:
    for number, value in enumerate(values, first):
        counts = np.full((SIZE, SIZE), value, np.uint16)
        pipeline.submit(Frame(scan, number, float(number), counts, {"x": 0.0, "y": 0.0}))


def stream(pipeline: Pipeline, scan: str, values: list[int]) -> None:
    submit(pipeline, scan, values)
    pipeline.end_scan(scan).result(10)


def test_every_scan_gets_its_own_scale_and_keeps_it(running: tuple[Pipeline, Noting]) -> None:
    pipeline, engine = running
    pipeline.dose_scale = 9.0
    stream(pipeline, "by hand", [1] * 6)
    assert set(engine.scales) == {9.0}
    pipeline.scan_dose.automatic = True
    engine.scales.clear()
    stream(pipeline, "weak", [10] * 20 + [100] * 40)  # the beam comes back in mid-scan: no jump
    assert set(engine.scales) == {10.0}
    assert pipeline.snapshot().dose_scale == 10.0
    engine.scales.clear()
    stream(pipeline, "strong", [200] * 30)
    assert set(engine.scales) == {0.5}
    stitched = pipeline.stitched()
    assert stitched is not None
    assert (stitched.scan, stitched.dose_scale) == ("strong", 0.5)
    pipeline.scan_dose.automatic = False
    assert pipeline.snapshot().dose_scale == 9.0


def test_another_model_in_mid_scan_gets_the_scale_for_its_own_training(running: tuple[Pipeline, Noting]) -> None:
    pipeline, engine = running
    pipeline.scan_dose.automatic = True
    submit(pipeline, "s", [10] * 16)
    contract = ModelContract(
        name="other", input_shape=(SIZE, SIZE), output_shape=(SIZE, SIZE), object_pixel_m=1e-8, mean_counts=1280.0
    )
    other = Noting()
    pipeline.swap_engine(lambda: other, contract).result(10)
    other.scales.clear()
    submit(pipeline, "s", [40] * 8, first=16)
    pipeline.end_scan("s").result(10)
    assert set(other.scales) == {1280 / 640}
    assert set(engine.scales) <= {10.0}
