"""Frames that wait for a stream of positions, over the ends of their scans; and places that would ruin a canvas."""

from __future__ import annotations

import tracemalloc
from concurrent.futures import Future

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from ptychostream.errors import DropCause
from ptychostream.frames.frames import Frame
from ptychostream.model.contract import ModelContract, Preprocessing
from ptychostream.plugins.engines.null import NullEngine
from ptychostream.plugins.flow.batcher import Batcher
from ptychostream.plugins.flow.frame_flow import FrameFlow
from ptychostream.plugins.pipeline import Pipeline, PipelineSettings
from ptychostream.positions.position_gate import GatedPositions, GateSettings
from ptychostream.positions.position_stream import StreamPositions, StreamPositionSettings
from ptychostream.positions.positions import AttributePositions

COUNTS = np.ones((16, 16), np.uint16)
WAIT_S = 5.0


def frame(number: int, scan: str, time: float) -> Frame:
    return Frame(scan, number, time, COUNTS)


class FramesOfManyScans(RuleBasedStateMachine):
    """Frames, scans, samples and time in any interleaving: nothing is lost, nothing waits for ever, places are true."""

    def __init__(self) -> None:
        super().__init__()
        self.source = StreamPositions(StreamPositionSettings(tolerance_s=2.5))
        self.batcher = Batcher(4, 0.1, 1000)
        self.flow = FrameFlow(self.source, 6, self.batcher)
        self.flow.position_wait_s = WAIT_S
        self.now = 100.0
        self.numbers: dict[str, int] = {}
        self.sent = 0.0
        self.waited: dict[int, float] = {}  # runs that are over and wait: since when

    @rule(scan=st.sampled_from("abc"), lead=st.floats(-3, 3))
    def frame_comes(self, scan: str, lead: float) -> None:
        number = self.numbers[scan] = self.numbers.get(scan, 0) + 1
        self.flow.submit(frame(number, scan, max(0.0, self.sent + lead)), self.now)

    @rule(gaps=st.lists(st.sampled_from([0.5, 1.0, 3.0]), min_size=1, max_size=5))
    def samples_come(self, gaps: list[float]) -> None:
        times = self.sent + np.cumsum(gaps)
        self.sent = float(times[-1])
        self.source.update(times, times * 1e-6, -times * 1e-6)
        self.flow.poll(self.now)

    @rule()
    def the_scan_ends(self) -> None:
        self.flow.end_scan(self.flow.scan or "", self.now)

    @rule(seconds=st.sampled_from([0.1, 1.0, WAIT_S]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds
        self.flow.tick(self.now)
        current = self.flow.runs.current
        for run in self.flow.runs.finished:
            if run.ended is not None and run is not current and self.now - run.ended > 20.0:
                assert not self.flow.waits_for_position(run.number)

    @rule()
    def a_batch_is_stitched(self) -> None:
        self.flow.take(self.now)
        for placed in self.flow.in_flight:
            assert placed.x_m == pytest.approx(placed.frame.time * 1e-6, abs=1e-12)
            assert placed.y_m == -placed.x_m
        assert len({placed.frame.run for placed in self.flow.in_flight}) <= 1
        self.flow.land(len(self.flow.in_flight), [])

    @rule()
    def the_source_is_changed(self) -> None:
        self.flow.set_positions(self.source, self.now)

    @invariant()
    def the_law_holds(self) -> None:
        assert self.flow.holds
        waiting = [run for run in (*self.flow.runs.finished, self.flow.runs.current) if run is not None]
        assert self.flow.waiting_position == sum(self.flow._join.waiting_of(run.number) for run in waiting)
        assert all(run.pending >= 0 for run in waiting)

    def teardown(self) -> None:
        self.flow.close(self.now)
        assert self.flow.waiting_position == 0
        assert self.flow.holds


TestFramesOfManyScans = pytest.mark.slow(FramesOfManyScans.TestCase)
TestFramesOfManyScans.settings = settings(max_examples=80, stateful_step_count=40, deadline=None)


def make_contract() -> ModelContract:
    return ModelContract(
        name="plain", input_shape=(16, 16), output_shape=(16, 16), object_pixel_m=1e-8, preprocessing=Preprocessing()
    )


@pytest.fixture
def source() -> StreamPositions:
    return StreamPositions(StreamPositionSettings(tolerance_s=2.0))


def started(source: GatedPositions | StreamPositions, **values: object) -> Pipeline:
    pipeline = Pipeline(PipelineSettings.model_validate({"max_latency_s": 0.01, **values}), source)
    pipeline.start()
    pipeline.swap_engine(lambda: NullEngine((16, 16), 8), make_contract()).result(30)
    return pipeline


def test_the_end_of_a_scan_is_through_when_its_positions_have_come(source: StreamPositions) -> None:
    pipeline = started(source)
    for number in range(10):
        pipeline.submit(frame(number, "first", 1.0 + number))
    ended = pipeline.end_scan("first")
    for number in range(5):
        pipeline.submit(frame(number, "second", 21.0 + number))
    pipeline.update_positions(lambda: source.update(np.arange(9.0), np.arange(9.0) * 1e-7, np.zeros(9)))
    assert not ended.done()
    pipeline.update_positions(lambda: source.update(np.arange(9.0, 40.0), np.arange(9.0, 40.0) * 1e-7, np.zeros(31)))
    assert ended.result(10) == 10
    assert pipeline.end_scan("second").result(10) == 5
    assert pipeline.stop()
    snapshot = pipeline.snapshot()
    assert snapshot.law_holds
    assert snapshot.stitched == 15
    first = pipeline.stitched(1)
    assert first is not None
    assert first.image.origin_m[0] == pytest.approx(1e-7 - 8e-8, abs=1e-12)


def test_the_end_of_a_scan_waits_no_longer_than_it_may(source: StreamPositions) -> None:
    pipeline = started(source, position_wait_s=0.2)
    pipeline.submit(frame(1, "first", 1.0))
    ended: Future[int] = pipeline.end_scan("first")
    while not ended.done():
        pipeline.tick()
    assert ended.result() == 0
    assert pipeline.snapshot().dropped[DropCause.NO_POSITION] == 1
    pipeline.submit(frame(2, "second", 2.0))
    assert pipeline.stop()  # what still waits then is dropped
    snapshot = pipeline.snapshot()
    assert (snapshot.pending, snapshot.law_holds) == (0, True)


def test_waiting_frames_are_bounded_and_the_longest_waiting_goes(source: StreamPositions) -> None:
    pipeline = started(source, join_size=50)
    for number in range(2000):
        pipeline.submit(frame(number, "s", number * 0.01))
    snapshot = pipeline.snapshot()
    assert (snapshot.waiting_position, snapshot.dropped[DropCause.NO_POSITION]) == (50, 1950)
    assert pipeline.stop()


@pytest.mark.parametrize("limited", [True, False], ids=["field of view", "canvas limit alone"])
def test_one_wild_position_costs_itself_alone(limited: bool) -> None:
    field = GateSettings(field_width_m=5e-6, field_height_m=5e-6) if limited else GateSettings()
    gate = GatedPositions(AttributePositions("x", "y"), field)
    pipeline = started(gate, max_canvas_pixels=1_000_000)
    tracemalloc.start()
    try:
        for number, (x, y) in enumerate([(0.0, 0.0), (0.3, -0.2), (5e-5, 5e-5), (1e300, 0.0), (1e-7, 1e-7)]):
            pipeline.submit(Frame("s", number, float(number), COUNTS, {"x": x, "y": y}))
        assert pipeline.end_scan("s").result(10) == 2
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
        assert pipeline.stop()
    assert peak < 20e6
    snapshot = pipeline.snapshot()
    assert snapshot.law_holds
    assert snapshot.dropped[DropCause.NO_POSITION] == 3
    assert gate.outside == (3 if limited else 0)
    stitched = pipeline.stitched()
    assert stitched is not None
    assert stitched.image.phase.shape == (26, 26)
