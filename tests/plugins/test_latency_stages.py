"""Where a frame's time goes, stage by stage; and clocks that are wrong."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from ptychostream.frames.frames import Frame, PlacedFrame
from ptychostream.model.contract import ModelContract
from ptychostream.plugins.pipeline import Pipeline, PipelineSettings
from ptychostream.plugins.stage_times import MOST_ARRIVAL_S, BatchTimes, Stage, StageTimes
from ptychostream.positions.positions import WaveformPositions

COUNTS = np.ones((8, 8), np.uint16)
TIMES = BatchTimes(taken=10.2, prepared=10.201, inferred=10.231, stitched=10.233)
BIN = 0.024


def placed(arrival_s: float = 0.005, entered: float = 10.0, queued: float = 10.1) -> PlacedFrame:
    """A frame taken at POSIX time 5000."""
    frame = Frame("s", 0, 5000.0, COUNTS, received=5000.0 + arrival_s, entered=entered)
    return PlacedFrame(frame, 0.0, 0.0, queued)


def test_every_stage_has_its_time() -> None:
    times = StageTimes()
    times.note([placed()] * 3, TIMES)
    with times.serving() as publication:
        publication.published(10.333)
    latencies = times.latencies()
    expected = {
        Stage.ARRIVAL: 5,
        Stage.POSITION: 100,
        Stage.QUEUE: 100,
        Stage.PREPROCESS: 1,
        Stage.INFERENCE: 30,
        Stage.STITCH: 2,
        Stage.SERVE: 100,
    }
    assert set(expected) == set(Stage)
    for stage, milliseconds in expected.items():
        assert latencies.stages_ms[stage] == pytest.approx((milliseconds, milliseconds), rel=BIN), stage
    assert latencies.stitched_ms == pytest.approx([238] * 3, rel=BIN)
    assert latencies.served_ms == pytest.approx([338] * 3, rel=BIN)
    assert times.stitched_ms() == latencies.stitched_ms
    assert latencies.clock_errors == 0


def test_percentiles_are_those_of_all_frames_however_they_came() -> None:
    times = StageTimes()
    arrivals = np.random.default_rng(0).uniform(0.001, 1.0, 2000)
    for part in np.array_split(arrivals, 150):
        times.note([placed(float(arrival)) for arrival in part], TIMES)
    expected = 1e3 * (np.percentile(arrivals, [50, 95, 99]) + 0.233)
    assert times.latencies().stitched_ms == pytest.approx(expected, rel=0.03)


@pytest.mark.parametrize("arrival_s", [-3600.0, -0.001, MOST_ARRIVAL_S + 1, 1.7e9, float("nan")])
def test_a_clock_that_is_wrong_is_counted_and_poisons_nothing(arrival_s: float) -> None:
    times = StageTimes()
    times.note([placed(0.005), placed(arrival_s), placed(0.005)], TIMES)
    with times.serving() as publication:
        publication.published(10.333)
    latencies = times.latencies()
    assert latencies.clock_errors == 1
    assert latencies.stitched_ms == pytest.approx([238] * 3, rel=BIN)
    assert latencies.served_ms == pytest.approx([338] * 3, rel=BIN)
    assert latencies.stages_ms[Stage.ARRIVAL] == pytest.approx((5, 5), rel=BIN)
    assert latencies.stages_ms[Stage.INFERENCE] == pytest.approx((30, 30), rel=BIN)
    times.restart_counters()
    assert times.latencies().clock_errors == 0


def test_all_clocks_wrong_leaves_the_stages_within_the_process() -> None:
    times = StageTimes()
    times.note([placed(-60.0)] * 4, TIMES)
    latencies = times.latencies()
    assert latencies.clock_errors == 4
    assert np.isnan([*latencies.stitched_ms, *latencies.served_ms]).all()
    assert latencies.stages_ms[Stage.QUEUE][0] == pytest.approx(100, rel=BIN)


@pytest.mark.slow
@given(st.lists(st.tuples(st.sampled_from(["note", "serve", "fail"]), st.integers(1, 600)), max_size=20))
def test_every_stitched_frame_is_served_once_with_the_next_image_that_comes_out(steps: list[tuple[str, int]]) -> None:
    times = StageTimes()
    now, waiting, served = 11.0, 0, 0
    for what, frames in steps:
        now += 0.5
        if what == "note":
            times.note([placed()] * frames, TIMES)
            waiting += frames
            continue
        with times.serving() as publication:
            times.note([placed()], TIMES)  # stitched while the image is made: it may not be on it
            if what == "serve":
                publication.published(now)
                served, waiting = served + waiting, 0
            waiting += 1
        counted = int(times._histograms._bins[-1].sum())
        assert counted == served


@pytest.mark.slow
def test_what_no_image_shows_does_not_pile_up() -> None:
    times = StageTimes()
    for _ in range(1300):
        times.note([placed()] * 512, TIMES)
    assert len(times._unserved) <= 1000


def test_a_new_run_begins_anew_and_an_older_one_does_not() -> None:
    times = StageTimes()
    times.begin(1)
    times.note([placed()], TIMES)
    times.begin(1)
    assert times.stitched_ms()[0] > 0
    times.begin(2)
    assert np.isnan(times.stitched_ms()[0])
    times.note([placed()], TIMES)
    times.begin(1)  # late frames of the run before
    assert times.stitched_ms()[0] > 0


class HeldEngine:
    """Waits until it is let go."""

    name, version, precision, device, reason = "held", "1", "float32", "CPU", "a test"
    batch = 4
    input_shape = output_shape = COUNTS.shape

    def __init__(self) -> None:
        self.free = threading.Event()
        self.entered = threading.Event()

    def infer(self, counts: NDArray[np.float32], dose_scale: float = 1.0) -> NDArray[np.float32]:  # noqa: ARG002
        if counts.any():
            self.entered.set()
            assert self.free.wait(20)
        return np.zeros_like(counts)

    def close(self) -> None:
        pass


def test_the_pipeline_gives_each_wait_to_its_stage(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a clock of our own: 3 s for the position, 5 s for the engine, 7 s in it; and the system clock steps back."""
    clock = {"s": 100.0, "posix": 5000.0}
    monkeypatch.setattr(time, "monotonic", lambda: clock["s"])
    monkeypatch.setattr(time, "time", lambda: clock["posix"])

    def pass_time(seconds: float) -> None:
        clock["s"] += seconds
        clock["posix"] += seconds

    source, engine = WaveformPositions(), HeldEngine()
    pipeline = Pipeline(PipelineSettings(batch=4, max_latency_s=1000), source)
    contract = ModelContract(name="m", input_shape=(8, 8), output_shape=(8, 8), object_pixel_m=1e-8)
    pipeline.start()
    try:
        pipeline.swap_engine(lambda: engine, contract).result(10)
        pipeline.update_positions(lambda: source.update([0.0] * 4, [0.0] * 4))
        for number in range(4):  # these keep the engine busy
            pipeline.submit(Frame("s", number, 4999.0, COUNTS))
        assert engine.entered.wait(10)
        for number in range(4, 8):
            pipeline.submit(Frame("s", number, clock["posix"] - 0.25, COUNTS))
        pass_time(3.0)
        pipeline.update_positions(lambda: source.update([0.0] * 8, [0.0] * 8))
        pass_time(5.0)
        clock["posix"] -= 3600
        engine.entered.clear()
        engine.free.set()
        pipeline.end_scan("s").result(10)
        latencies = pipeline.times.latencies()
        assert latencies.clock_errors == 0
        assert latencies.stages_ms[Stage.POSITION][1] == pytest.approx(3000, rel=BIN)
        assert latencies.stages_ms[Stage.QUEUE][1] == pytest.approx(5000, rel=BIN)
        assert latencies.stages_ms[Stage.INFERENCE][1] == pytest.approx(8000, rel=BIN)
        assert latencies.stitched_ms[0] == pytest.approx(8250, rel=BIN)
        assert latencies.stitched_ms[2] == pytest.approx(9000, rel=BIN)
    finally:
        engine.free.set()
        assert pipeline.stop(10)


def test_frames_of_another_process_may_name_no_arrival() -> None:
    """What comes without `received` has just arrived."""
    pipeline = Pipeline(PipelineSettings(), WaveformPositions())
    frame = Frame("s", 0, time.time(), COUNTS)
    pipeline.submit(frame)
    assert frame.received >= frame.time
    assert frame.entered > 0


def test_noting_costs_nothing_that_counts() -> None:
    """Numpy is called once for hundreds of frames, not for every batch."""
    times = StageTimes()
    calls = []
    record = times._histograms.record
    counted: Callable[..., None] = lambda *arguments: (calls.append(1), record(*arguments))  # noqa: E731
    times._histograms.record = counted  # type: ignore[method-assign]
    for _ in range(64):
        times.note([placed()] * 8, TIMES)
    assert len(calls) <= 4
