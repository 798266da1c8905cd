"""The pipeline whole, with a deterministic engine: the accounting, the canvas, scans, swaps, failures."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, wait
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from pipeline_helpers import (
    WEIGHT,
    FakeEngine,
    assert_same,
    make_contract,
    make_frame,
    reference,
    started,
    wait_for,
)
from pydantic import ValidationError

from ptychostream.errors import DropCause, EngineError, FrameError
from ptychostream.frames.frames import Frame
from ptychostream.plugins.flow.batcher import Batcher
from ptychostream.plugins.flow.frame_flow import FrameFlow
from ptychostream.plugins.flow.snapshot import Snapshot
from ptychostream.plugins.pipeline import Pipeline, PipelineSettings
from ptychostream.positions.positions import AttributePositions, WaveformPositions


class Clock:
    """In the place of the module `time`, with a clock that stands still."""

    def __init__(self, now: float) -> None:
        self.monotonic = lambda: now
        self.time = time.time


@contextmanager
def running(source: Any = None, engine: FakeEngine | None = None, **options: Any) -> Iterator[Pipeline]:
    """A started pipeline; without an engine when `engine` is None."""
    settings = PipelineSettings(**{"max_latency_s": 5.0, "backlog_batches": 1, **options})
    with started(Pipeline(settings, source or AttributePositions("x", "y")), engine) as pipeline:
        yield pipeline


def drained(pipeline: Pipeline, scan: str = "s") -> Snapshot:
    pipeline.end_scan(scan).result(60)
    snapshot = pipeline.snapshot()
    assert snapshot.law_holds
    return snapshot


def test_frames_wait_for_the_first_engine_while_it_is_being_built() -> None:
    frames = [make_frame(number) for number in range(5)]
    with running() as pipeline:
        pipeline.expect_engine(True)
        for frame in frames:
            pipeline.submit(frame)
        ended = pipeline.end_scan("s")
        assert not wait([ended], 0.2).done
        assert pipeline.snapshot().pending == 5
        pipeline.swap_engine(FakeEngine, make_contract()).result(60)
        assert ended.result(60) == 5
        assert_same(pipeline.stitched(), reference([make_frame(number) for number in range(5)]))


def test_frames_that_waited_for_an_engine_that_does_not_come_are_dropped() -> None:
    with running() as pipeline:
        pipeline.expect_engine(True)
        pipeline.submit(make_frame(0))
        pipeline.expect_engine(False)
        assert drained(pipeline).dropped[DropCause.NO_MODEL] == 1
        pipeline.expect_engine(True)
        pipeline.submit(make_frame(1))
    assert pipeline.snapshot().dropped[DropCause.NO_MODEL] == 2


def test_an_engine_that_fails_and_fails_does_not_fill_the_log(caplog: pytest.LogCaptureFixture) -> None:
    class Failing(FakeEngine):
        def infer(self, counts: NDArray[np.float32], dose_scale: float = 1.0) -> NDArray[np.float32]:
            if counts.any():
                raise RuntimeError("failing")
            return super().infer(counts, dose_scale)

    with running(None, Failing(batch=1), batch=1) as pipeline:
        for number in range(40):
            pipeline.submit(make_frame(number))
        assert drained(pipeline).dropped[DropCause.ENGINE] == 40
    told = [record.getMessage() for record in caplog.records if "in a row" in record.getMessage()]
    assert [int(text.split("the ")[1].split(".")[0]) for text in told] == [1, 2, 4, 8, 16, 32]


def test_every_frame_reaches_the_canvas_and_the_tail_too() -> None:
    frames = [make_frame(number) for number in range(21)]
    engine = FakeEngine()
    with running(engine=engine) as pipeline:
        for number in range(21):
            pipeline.submit(make_frame(number))
        snapshot = drained(pipeline)
        assert (snapshot.received, snapshot.stitched, snapshot.pending) == (21, 21, 0)
        assert sum(snapshot.dropped.values()) == 0
        assert engine.sizes == [8, 8, 5]
        assert snapshot.batches == 3
        assert snapshot.execution_ms > 0
        assert not snapshot.scan_active
        tail = np.mean([frame.counts.sum() for frame in frames[16:]])
        assert snapshot.mean_counts == pytest.approx(tail, rel=1e-5)
        assert_same(pipeline.stitched(), reference(frames))
        patch = snapshot.patch
        assert patch is not None
        assert patch.frame_id == 20
        assert np.array_equal(patch.phase, frames[20].counts * np.float32(0.01))
    assert engine.closed


def test_frames_taken_together_end_as_those_taken_one_by_one() -> None:
    def stream() -> list[Frame]:
        frames = [make_frame(number, scan) for scan in ("s", "t") for number in (1, 2, 3, 3, 5, 9, 8)]
        frames[4].attributes = {}  # nowhere
        return frames

    seen = []
    for together in (False, True):
        with running(engine=FakeEngine()) as pipeline:
            if together:
                pipeline.submit_all(stream())
            else:
                for frame in stream():
                    pipeline.submit(frame)
            figures = drained(pipeline, "t")
            stitched = pipeline.stitched()
            assert stitched is not None
            assert figures.received == 14 and figures.dropped[DropCause.DUPLICATE] == 2 and figures.disordered == 2
            seen.append((figures.stitched, figures.dropped, figures.missed, stitched.image.phase.tobytes()))
    assert seen[0] == seen[1]


def test_a_partial_batch_leaves_when_its_latency_is_spent() -> None:
    with running(engine=FakeEngine(), max_latency_s=0.02) as pipeline:
        for number in range(3):
            pipeline.submit(make_frame(number))
        wait_for(lambda: pipeline.snapshot().stitched == 3)
        assert pipeline.snapshot().scan_active


@pytest.mark.parametrize("batch", [1, 3, 8])
def test_the_canvas_does_not_depend_on_order_or_batches(batch: int) -> None:
    frames = [make_frame(number) for number in range(25)]
    order = list(range(25))
    random.Random(batch).shuffle(order)
    with running(engine=FakeEngine(), batch=batch) as pipeline:
        for number in order:
            pipeline.submit(make_frame(number))
        snapshot = drained(pipeline)
        assert snapshot.stitched == 25
        assert snapshot.disordered > 0
        assert snapshot.missed == 0
        assert_same(pipeline.stitched(), reference(frames))


def test_without_a_model_frames_are_counted_as_such() -> None:
    with running() as pipeline:
        for number in range(5):
            pipeline.submit(make_frame(number))
        snapshot = drained(pipeline)
        assert snapshot.dropped[DropCause.NO_MODEL] == 5
        assert snapshot.engine == ""
        assert pipeline.stitched() is None


def test_rejected_duplicate_and_missing_frames() -> None:
    with running(engine=FakeEngine()) as pipeline:
        pipeline.reject(FrameError(DropCause.CODEC, "garbage"))
        for number in (0, 1, 1, 4):
            pipeline.submit(make_frame(number))
        snapshot = drained(pipeline)
        assert (snapshot.received, snapshot.stitched) == (5, 3)
        assert snapshot.dropped[DropCause.CODEC] == 1
        assert snapshot.dropped[DropCause.DUPLICATE] == 1
        assert snapshot.missed == 2
        assert "garbage" in snapshot.message
        pipeline.reset_counters()
        snapshot = pipeline.snapshot()
        assert (snapshot.received, snapshot.missed, snapshot.message) == (0, 0, "")
        assert snapshot.law_holds


def test_a_frame_of_another_shape_goes_alone() -> None:
    good = [make_frame(0), make_frame(2)]
    with running(engine=FakeEngine()) as pipeline:
        pipeline.submit(make_frame(0))
        pipeline.submit(make_frame(1, shape=(17, 16)))
        pipeline.submit(make_frame(2))
        snapshot = drained(pipeline)
        assert snapshot.stitched == 2
        assert snapshot.dropped[DropCause.SHAPE] == 1
        assert "(17, 16)" in snapshot.message
        assert_same(pipeline.stitched(), reference(good))


def test_positions_that_never_come_or_lie_nowhere() -> None:
    with running(engine=FakeEngine(), max_canvas_pixels=10_000) as pipeline:
        far, none = make_frame(1), make_frame(2)
        far.attributes = {"x": 1.0, "y": 0.0}
        none.attributes = {}
        for frame in (make_frame(0), far, none):
            pipeline.submit(frame)
        snapshot = drained(pipeline)
        assert snapshot.stitched == 1
        assert snapshot.dropped[DropCause.NO_POSITION] == 2
        assert_same(pipeline.stitched(), reference([make_frame(0)]))


def test_frames_wait_for_positions_that_come_later() -> None:
    source = WaveformPositions()
    frames = [make_frame(number) for number in range(10)]
    x = [float(frame.attributes["x"]) for frame in frames]
    y = [float(frame.attributes["y"]) for frame in frames]
    with running(source, FakeEngine()) as pipeline:
        for number in range(10):
            pipeline.submit(make_frame(number))
        assert pipeline.snapshot().waiting_position == 10
        pipeline.update_positions(lambda: source.update(x[:6], y[:6]))
        snapshot = pipeline.snapshot()
        assert snapshot.waiting_position == 4
        assert snapshot.law_holds
        source.update(x[:7], y[:7])  # behind the pipeline's back: not lost when the source is replaced
        other = WaveformPositions()
        other.update(x[:9], y[:9])
        pipeline.set_positions(other)
        assert pipeline.snapshot().waiting_position == 1
        snapshot = drained(pipeline)
        assert snapshot.stitched == 9
        assert snapshot.dropped[DropCause.NO_POSITION] == 1
        assert_same(pipeline.stitched(), reference(frames[:9]))


def test_an_engine_that_fails_costs_its_batch_alone() -> None:
    with running(engine=FakeEngine(), batch=4) as pipeline:
        for number in range(12):
            frame = make_frame(number)
            if number == 5:
                frame.counts[0, 0] = 666
            pipeline.submit(frame)
        snapshot = drained(pipeline)
        assert snapshot.stitched == 8
        assert snapshot.dropped[DropCause.ENGINE] == 4
        assert "out of memory" in snapshot.message
        kept = [make_frame(number) for number in (0, 1, 2, 3, 8, 9, 10, 11)]
        assert_same(pipeline.stitched(), reference(kept))


def test_a_patch_that_is_not_finite_goes_alone() -> None:
    class Nan(FakeEngine):
        def infer(self, counts: NDArray[np.float32], dose_scale: float = 1.0) -> NDArray[np.float32]:
            phase = super().infer(counts, dose_scale)
            if len(phase) == 3:
                phase[1, 3, 3] = np.nan
            return phase

    with running(engine=Nan()) as pipeline:
        for number in range(3):
            pipeline.submit(make_frame(number))
        snapshot = drained(pipeline)
        assert snapshot.dropped[DropCause.ENGINE] == 1
        assert_same(pipeline.stitched(), reference([make_frame(0), make_frame(2)]))


@pytest.mark.parametrize(("when_full", "lost"), [("drop_newest", {8, 9}), ("drop_oldest", {2, 3})])
def test_a_full_queue_drops_and_counts(when_full: str, lost: set[int]) -> None:
    engine = FakeEngine()
    with running(engine=engine, batch=2, queue_size=6, when_full=when_full) as pipeline:
        engine.gate.clear()
        pipeline.submit(make_frame(0))
        pipeline.submit(make_frame(1))
        assert engine.entered.wait(10)  # two are in flight; six more fill the queue
        for number in range(2, 10):
            pipeline.submit(make_frame(number))
        snapshot = pipeline.snapshot()
        assert (snapshot.in_flight, snapshot.queue_used, snapshot.pending) == (2, 6, 8)
        assert snapshot.dropped[DropCause.QUEUE_FULL] == 2
        assert snapshot.law_holds
        engine.gate.set()
        assert drained(pipeline).stitched == 8
        assert_same(pipeline.stitched(), reference([make_frame(n) for n in range(10) if n not in lost]))


def test_each_scan_has_its_own_canvas_and_frames_of_the_one_before_go_to_theirs() -> None:
    second = [make_frame(number, "b") for number in range(100, 103)]
    with running(engine=FakeEngine()) as pipeline:
        for number in range(5):
            pipeline.submit(make_frame(number, "a"))
        drained(pipeline, "a")
        pipeline.submit(make_frame(100, "b"))
        pipeline.submit(make_frame(6, "a"))
        pipeline.submit(make_frame(101, "b"))
        pipeline.submit(make_frame(102, "b"))
        snapshot = drained(pipeline, "b")
        assert (snapshot.dropped[DropCause.LATE], snapshot.late_taken) == (0, 1)
        assert (snapshot.stitched, snapshot.scan_stitched, snapshot.scan) == (9, 3, "b")
        assert_same(pipeline.stitched(), reference(second))
        stitched = pipeline.stitched()
        assert stitched is not None
        assert (stitched.scan, stitched.last_frame_id, stitched.model) == ("b", 102, "m1")


def test_frames_that_the_word_of_the_end_overtook_are_stitched() -> None:
    frames = [make_frame(number) for number in range(6)]
    with running(engine=FakeEngine(), max_latency_s=0.02) as pipeline:
        for number in range(3):
            pipeline.submit(make_frame(number))
        drained(pipeline)
        for number in range(3, 6):
            pipeline.submit(make_frame(number))
        wait_for(lambda: pipeline.snapshot().scan_stitched == 6)
        assert not pipeline.snapshot().scan_active
        assert_same(pipeline.stitched(), reference(frames))


def test_frames_without_position_do_not_wait_after_the_end() -> None:
    with running(WaveformPositions(), FakeEngine()) as pipeline:
        pipeline.submit(make_frame(0))
        drained(pipeline)
        pipeline.submit(make_frame(1))
        snapshot = pipeline.snapshot()
        assert (snapshot.pending, snapshot.dropped[DropCause.NO_POSITION]) == (0, 2)


def test_a_new_scan_ends_the_one_before_and_loses_none_of_it() -> None:
    engine = FakeEngine()
    with running(engine=engine) as pipeline:
        engine.gate.clear()
        for scan, number in (("a", 0), ("a", 1), ("a", 2), ("b", 0), ("b", 1)):
            pipeline.submit(make_frame(number, scan))
        engine.gate.set()
        assert drained(pipeline, "b").stitched == 5
        assert engine.sizes == [3, 2]
        assert_same(pipeline.stitched(), reference([make_frame(0), make_frame(1)]))


def test_a_scan_of_the_same_name_may_start_again() -> None:
    with running(engine=FakeEngine()) as pipeline:
        for number in range(3):
            pipeline.submit(make_frame(number))
        pipeline.start_scan("s")  # it runs already: nothing happens
        assert drained(pipeline).scan_stitched == 3
        pipeline.start_scan("s")
        for number in range(5, 7):
            pipeline.submit(make_frame(number))
        snapshot = drained(pipeline)
        assert snapshot.dropped[DropCause.LATE] == 0
        assert snapshot.scan_stitched == 2
        assert_same(pipeline.stitched(), reference([make_frame(5), make_frame(6)]))


def test_a_stream_without_scan_names_goes_on_after_a_flush_until_a_start() -> None:
    with running(engine=FakeEngine()) as pipeline:
        pipeline.submit(make_frame(0, ""))
        assert drained(pipeline, "").scan_stitched == 1
        pipeline.submit(make_frame(1, ""))
        assert drained(pipeline, "").scan_stitched == 2
        pipeline.start_scan("")
        pipeline.submit(make_frame(0, ""))
        assert drained(pipeline, "").scan_stitched == 1


def test_reset_empties_the_canvas() -> None:
    with running(engine=FakeEngine()) as pipeline:
        pipeline.submit(make_frame(0, time=time.time()))
        pipeline.submit(make_frame(1, time=time.time()))
        assert drained(pipeline).scan_stitched == 2
        assert pipeline.snapshot().latency_ms[0] > 0
        pipeline.reset()
        snapshot = pipeline.snapshot()
        assert (snapshot.scan_stitched, snapshot.patch) == (0, None)
        assert np.isnan(snapshot.latency_ms[0])
        assert snapshot.stitched == 2


def test_an_engine_is_swapped_between_two_batches_and_the_canvas_goes_on() -> None:
    old, new = FakeEngine("old"), FakeEngine("new", batch=2, scale=0.02)
    other_weight = WEIGHT**2
    with running(engine=old, batch=4) as pipeline:
        old.gate.clear()
        for number in range(4):
            pipeline.submit(make_frame(number))
        assert old.entered.wait(10)
        swap = pipeline.swap_engine(lambda: new, make_contract("m2", weight=other_weight), thread_bound=True)
        for number in range(4, 8):
            pipeline.submit(make_frame(number))
        assert not swap.done()
        old.gate.set()
        assert swap.result(60) == "new"
        assert old.closed
        snapshot = drained(pipeline)
        assert (snapshot.engine, snapshot.model, snapshot.stitched) == ("new", "m2", 8)
        assert old.sizes == [4]
        assert new.sizes == [2, 2]
        canvas = reference([make_frame(n) for n in range(4, 8)], 0.02, other_weight)
        canvas.merge(reference([make_frame(n) for n in range(4)]))
        assert_same(pipeline.stitched(), canvas)


def test_a_model_of_another_pixel_begins_a_new_canvas_and_says_so() -> None:
    with running(engine=FakeEngine()) as pipeline:
        pipeline.submit(make_frame(0))
        drained(pipeline)
        pipeline.swap_engine(FakeEngine, make_contract(pixel_m=2e-8)).result(60)
        snapshot = pipeline.snapshot()
        assert snapshot.scan_stitched == 0
        assert "anew" in snapshot.message


@pytest.mark.parametrize("thread_bound", [False, True])
def test_an_engine_that_cannot_be_built_leaves_the_running_one(thread_bound: bool) -> None:
    def broken() -> FakeEngine:
        raise EngineError("no device")

    engine = FakeEngine()
    with running(engine=engine) as pipeline:
        with pytest.raises(EngineError, match="no device"):
            pipeline.swap_engine(broken, make_contract(), thread_bound).result(60)

        class Failing(FakeEngine):
            def infer(self, counts: NDArray[np.float32], dose_scale: float = 1.0) -> NDArray[np.float32]:
                raise RuntimeError(f"no device memory for {counts.shape} at {dose_scale}")

        failing = Failing()
        with pytest.raises(RuntimeError, match="no device memory"):
            pipeline.swap_engine(lambda: failing, make_contract(), thread_bound).result(60)
        assert failing.closed
        misfit = FakeEngine("misfit")
        misfit.output_shape = (8, 8)
        with pytest.raises(EngineError, match="contract"):
            pipeline.swap_engine(lambda: misfit, make_contract(), thread_bound).result(60)
        assert misfit.closed
        pipeline.submit(make_frame(0))
        snapshot = drained(pipeline)
        assert (snapshot.engine, snapshot.stitched) == ("fake", 1)


def test_the_running_engine_serves_while_the_next_is_built() -> None:
    go_on, thread = threading.Event(), Future[str]()

    def slow() -> FakeEngine:
        thread.set_result(threading.current_thread().name)
        assert go_on.wait(10)
        return FakeEngine("slow")

    with running(engine=FakeEngine()) as pipeline:
        swap = pipeline.swap_engine(slow, make_contract())
        assert thread.result(60) != "inference"
        pipeline.submit(make_frame(0))
        snapshot = drained(pipeline)
        assert (snapshot.stitched, snapshot.engine) == (1, "fake")
        go_on.set()
        assert swap.result(60) == "slow"


def test_a_thread_bound_engine_is_built_where_it_runs() -> None:
    threads = []

    class Bound(FakeEngine):
        def __init__(self) -> None:
            super().__init__("bound")
            threads.append(threading.current_thread())

        def infer(self, counts: NDArray[np.float32], dose_scale: float = 1.0) -> NDArray[np.float32]:
            threads.append(threading.current_thread())
            return super().infer(counts, dose_scale)

        def close(self) -> None:
            threads.append(threading.current_thread())
            super().close()

    with running() as pipeline:
        pipeline.swap_engine(Bound, make_contract(), thread_bound=True).result(60)
        pipeline.submit(make_frame(0))
        drained(pipeline)
    assert len(threads) > 3
    assert len(set(threads)) == 1


def test_a_swap_gets_through_a_queue_that_never_empties() -> None:
    old = FakeEngine("old")
    with running(engine=old, batch=1) as pipeline:
        stop = threading.Event()

        def feed() -> None:
            number = 0
            while not stop.is_set():
                pipeline.submit(make_frame(number % 50, time=float(number)))
                number += 1

        feeder = threading.Thread(target=feed)
        feeder.start()
        try:
            wait_for(lambda: pipeline.snapshot().queue_used > 20)
            pipeline.swap_engine(lambda: FakeEngine("new"), make_contract()).result(60)
        finally:
            stop.set()
            feeder.join()
        assert drained(pipeline).pending == 0


def test_stop_infers_what_waits_and_refuses_what_comes() -> None:
    engine = FakeEngine()
    with running(engine=engine) as pipeline:
        for number in range(5):
            pipeline.submit(make_frame(number))
        assert pipeline.stop(10)
        assert engine.closed
        pipeline.submit(make_frame(5))
        with pytest.raises(EngineError, match="stopped"):
            pipeline.swap_engine(FakeEngine, make_contract()).result(60)
        snapshot = drained(pipeline)
        assert (snapshot.received, snapshot.stitched, snapshot.pending) == (6, 5, 0)
        assert snapshot.dropped[DropCause.LATE] == 1
        assert_same(pipeline.stitched(), reference([make_frame(number) for number in range(5)]))


def test_stop_does_not_wait_for_ever_on_an_engine_that_hangs() -> None:
    engine = FakeEngine()
    with running(engine=engine, batch=1) as pipeline:
        engine.gate.clear()
        pipeline.submit(make_frame(0))
        assert engine.entered.wait(10)
        assert not pipeline.stop(0.05)
        snapshot = pipeline.snapshot()
        assert (snapshot.pending, snapshot.law_holds) == (1, True)


def test_settings_change_while_it_runs() -> None:
    engine = FakeEngine(batch=4)
    with running(engine=engine) as pipeline:
        pipeline.configure(batch=2, queue_size=100)
        for number in range(4):
            pipeline.submit(make_frame(number))
        wait_for(lambda: pipeline.snapshot().stitched == 4)
        assert engine.sizes == [2, 2]
        with pytest.raises(ValidationError):
            pipeline.configure(batch=0)
        pipeline.configure(batch=64)  # the engine takes four
        pipeline.submit(make_frame(4))
        pipeline.configure(max_latency_s=0.0)  # a waiting frame leaves at once
        wait_for(lambda: pipeline.snapshot().stitched == 5)
        pipeline.dose_scale = 2.0
        pipeline.submit(make_frame(5))
        patch = drained(pipeline).patch
        assert patch is not None
        assert np.array_equal(patch.phase, make_frame(5).counts * np.float32(2) * np.float32(0.01))


# Any interleaving. The flow alone first: passive, so that every step can be looked at.

flow_steps = st.lists(
    st.one_of(
        st.tuples(st.just("submit"), st.sampled_from(["a", "b", ""]), st.integers(0, 12)),
        st.tuples(st.just("reject"), st.sampled_from(list(DropCause)), st.none()),
        st.tuples(st.just("positions"), st.integers(0, 12), st.booleans()),
        st.tuples(st.just("source"), st.integers(0, 12), st.none()),
        st.tuples(st.just("start"), st.sampled_from(["a", "b", ""]), st.none()),
        st.tuples(st.just("end"), st.sampled_from(["a", "b", ""]), st.none()),
        st.tuples(st.just("take"), st.floats(0, 2), st.none()),
        st.tuples(st.just("land"), st.integers(0, 5), st.none()),
        st.tuples(st.just("restart"), st.none(), st.none()),
    ),
    max_size=80,
)


@pytest.mark.slow
@given(flow_steps, st.integers(1, 4), st.integers(1, 6), st.integers(1, 6), st.booleans())
def test_the_law_holds_after_every_step(
    steps: list[tuple[str, Any, Any]], batch: int, queue: int, join: int, drop_oldest: bool
) -> None:
    source = WaveformPositions()
    flow = FrameFlow(source, join, Batcher(batch, 1.0, queue, drop_oldest))
    counts = np.zeros((1, 1), np.uint8)
    now = 0.0

    def land(stitched: int) -> None:
        done = min(stitched, len(flow.in_flight))
        flow.land(done, [DropCause.ENGINE] * (len(flow.in_flight) - done))

    for index, (what, first, second) in enumerate(steps):
        received, in_flight = flow.ledger.received, list(flow.in_flight)
        if what == "submit":
            flow.submit(Frame(first, second, float(second), counts), now)
            assert flow.ledger.received == received + 1
        elif what == "reject":
            flow.reject(first)
        elif what == "positions":
            source.update([0.0] * first, [0.0] * first, complete=second)
            flow.poll(now)
        elif what == "source":
            source = WaveformPositions()
            source.update([0.0] * first, [0.0] * first)
            flow.set_positions(source, now)
        elif what == "start":
            flow.start_scan(first, now)
        elif what == "end":
            flow.end_scan(first, now)
        elif what == "take" and not in_flight:
            now += first
            flow.take(now)
        elif what == "land":
            land(first)
        elif what == "restart":
            flow.restart_counters()
        assert flow.holds, f"step {index}: {what} {first} {second}"
    land(0)
    flow.close(now)
    while flow.take(now) or flow.in_flight:
        land(len(flow.in_flight))
        assert flow.holds
    assert flow.pending == 0
    assert flow.waiting_position == 0


@pytest.mark.slow
def test_a_snapshot_is_of_one_moment_while_frames_stream() -> None:
    """Ledger, runs, canvas and latencies agree in each snapshot, wherever between two batches it falls."""
    stop = threading.Event()

    def stream(pipeline: Pipeline) -> None:
        number = 0
        while not stop.is_set():
            number += 1
            pipeline.submit(make_frame(number, scan=f"s{number // 200}", time=time.time()))
            if number % 7 == 0:
                pipeline.reject(FrameError(DropCause.CODEC, "garbage"))

    with running(engine=FakeEngine(), max_latency_s=0.002, queue_size=50) as pipeline:
        sender = threading.Thread(target=stream, args=(pipeline,))
        sender.start()
        try:
            seen = 0
            deadline = time.monotonic() + 60
            while seen < 1500 and time.monotonic() < deadline:
                snapshot = pipeline.snapshot()
                assert snapshot.received == snapshot.stitched + snapshot.pending + sum(snapshot.dropped.values())
                assert snapshot.pending == snapshot.waiting_position + snapshot.queue_used + snapshot.in_flight
                if not snapshot.runs:
                    continue
                run = snapshot.runs[0]
                assert (run.scan, run.received) == (
                    snapshot.scan,
                    run.stitched + run.pending + sum(run.dropped.values()),
                )
                assert snapshot.scan_stitched == run.stitched
                assert (snapshot.patch is None) == np.isnan(snapshot.latency_ms[0])
                seen = snapshot.stitched
            assert seen >= 1500
        finally:
            stop.set()
            sender.join()


def test_asking_for_a_snapshot_twice_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    with running(engine=FakeEngine(), batch=4) as pipeline:
        for number in range(10):
            pipeline.submit(make_frame(number, time=time.time()))
        drained(pipeline)
        now = time.monotonic()
        monkeypatch.setattr("ptychostream.plugins.pipeline.time", Clock(now))
        first = pipeline.snapshot()
        assert first.stitched == 10
        assert first.received_hz > 0
        assert first.stitched_hz > 0
        for _ in range(5):
            assert pipeline.snapshot() == first
        monkeypatch.undo()


@pytest.mark.slow
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("submit"), st.integers(0, 30)),
            st.tuples(st.just("bad"), st.sampled_from([DropCause.CODEC, DropCause.TYPE, DropCause.SHAPE])),
            st.tuples(st.just("positions"), st.integers(0, 31)),
            st.tuples(st.just("swap"), st.sampled_from([1, 3, 8])),
            st.tuples(st.just("fail"), st.booleans()),
            st.tuples(st.just("configure"), st.integers(1, 9)),
        ),
        max_size=60,
    )
)
def test_the_law_holds_through_threads_swaps_and_failures(steps: list[tuple[str, Any]]) -> None:
    source = WaveformPositions()
    frames = {number: make_frame(number) for number in range(31)}
    x = [float(frames[number].attributes["x"]) for number in range(31)]
    y = [float(frames[number].attributes["y"]) for number in range(31)]
    failing = threading.Event()

    class Engine(FakeEngine):
        def infer(self, counts: NDArray[np.float32], dose_scale: float = 1.0) -> NDArray[np.float32]:
            if failing.is_set() and counts.any():
                raise RuntimeError("failing")
            return super().infer(counts, dose_scale)

    swaps = []
    with running(source, Engine(), max_latency_s=0.001) as pipeline:
        for what, value in steps:
            if what == "submit":
                pipeline.submit(make_frame(value))
            elif what == "bad":
                pipeline.reject(FrameError(value, "bad"))
            elif what == "positions":
                pipeline.update_positions(lambda n=value: source.update(x[:n], y[:n]))
            elif what == "swap":
                swaps.append(pipeline.swap_engine(lambda n=value: Engine(batch=n), make_contract()))
            elif what == "fail":
                failing.set() if value else failing.clear()
            else:
                pipeline.configure(batch=value)
            assert pipeline.snapshot().law_holds
        failing.clear()
        pipeline.update_positions(lambda: source.update(x, y))
        for swap in swaps:
            swap.result(60)
        snapshot = drained(pipeline)
        assert snapshot.pending == 0
        submitted = [value for what, value in steps if what == "submit"]
        assert snapshot.received == len(submitted) + sum(what == "bad" for what, _ in steps)
        assert snapshot.received == snapshot.stitched + sum(snapshot.dropped.values())
        if not snapshot.dropped[DropCause.ENGINE] and submitted:
            assert snapshot.stitched == len(set(submitted))
            assert_same(pipeline.stitched(), reference([frames[number] for number in sorted(set(submitted))]))
