"""More frames than the engine can do: bounded, counted, and over without a restart when the load is."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from simulated_flow import SHAPE, Simulated, frame

from ptychostream.benchmarks.stream_overload import Sample, overload_figures
from ptychostream.cli.main import main
from ptychostream.errors import DropCause
from ptychostream.model.contract import ModelContract
from ptychostream.plugins.flow.batcher import Batcher, frames_at_once
from ptychostream.plugins.flow.frame_flow import FrameFlow
from ptychostream.plugins.pipeline import Pipeline, PipelineSettings
from ptychostream.positions.positions import AttributePositions

CONTRACT = ModelContract(name="m", input_shape=SHAPE, output_shape=SHAPE, object_pixel_m=1e-8)


@pytest.mark.parametrize("when_full", ["drop_newest", "drop_oldest"])
def test_at_twice_the_rate_latency_is_the_queues_and_only_the_excess_is_dropped(when_full: str) -> None:
    settings = PipelineSettings.model_validate({"queue_size": 200, "when_full": when_full})
    bench = Simulated(settings, frame_s=1 / 400)
    bench.run(2.0, 800)  # the queue fills in half a second
    bench.latency.clear()
    before = bench.flow.ledger.dropped[DropCause.QUEUE_FULL]
    bench.run(4.0, 800)
    call = frames_at_once(8, settings.backlog_batches)
    assert max(bench.latency) <= (200 + 2 * call) / 400  # the queue, the call in flight and the frame's own
    assert np.percentile(bench.latency, 50) <= (200 + call) / 400
    dropped = bench.flow.ledger.dropped
    assert (dropped[DropCause.QUEUE_FULL] - before) / 3200 == pytest.approx(0.5, abs=0.01)
    assert sum(dropped.values()) == dropped[DropCause.QUEUE_FULL]
    assert bench.flow.batcher.waiting >= 168  # full, but for one call

    bench.run(1.0, 100)  # the load falls: what waits goes through
    bench.latency.clear()
    lost = sum(dropped.values())
    bench.run(3.0, 100)
    assert sum(bench.flow.ledger.dropped.values()) == lost
    assert max(bench.latency) <= settings.max_latency_s + 8 / 400 + 1e-9
    assert bench.flow.pending <= 8


def test_the_oldest_gives_way_where_the_newest_matter() -> None:
    """The frames that are stitched at last are those of the end with one policy, of the beginning with the other."""
    kept = {}
    for when_full in ("drop_newest", "drop_oldest"):
        bench = Simulated(PipelineSettings.model_validate({"queue_size": 64, "when_full": when_full}), frame_s=10.0)
        bench.run(1.0, 400)
        kept[when_full] = [placed.frame.id for placed in bench.flow.batcher.clear()]
    assert len(kept["drop_newest"]) == len(kept["drop_oldest"]) == 64
    assert max(kept["drop_newest"]) < 100
    assert kept["drop_oldest"] == list(range(336, 400))


def test_a_backlog_leaves_in_larger_calls_and_a_light_load_in_small_ones() -> None:
    light = Simulated(PipelineSettings(), frame_s=1 / 1000, call_s=0.004)
    light.run(2.0, 200)
    assert set(light.sizes) == {8}
    heavy = Simulated(PipelineSettings(), frame_s=1 / 1000, call_s=0.004)
    heavy.run(2.0, 2000)
    assert set(heavy.sizes[-10:]) == {32}
    plain = Simulated(PipelineSettings(backlog_batches=1), frame_s=1 / 1000, call_s=0.004)
    plain.run(2.0, 2000)
    assert heavy.flow.ledger.stitched > 1.25 * plain.flow.ledger.stitched


@given(st.integers(1, 1024), st.integers(1, 64))
def test_a_call_takes_whole_batches_within_its_limit(batch: int, backlog_batches: int) -> None:
    at_once = frames_at_once(batch, backlog_batches)
    assert at_once % batch == 0
    assert batch <= at_once <= max(batch, min(128, batch * backlog_batches))


@given(st.integers(1, 9), st.integers(1, 40), st.integers(0, 200), st.booleans())
def test_what_leaves_is_whole_batches_while_more_wait(batch: int, at_once: int, waiting: int, flush: bool) -> None:
    batcher = Batcher(batch, 10.0, 1000, at_once=at_once)
    flow = FrameFlow(AttributePositions("x", "y"), 10, batcher)
    for number in range(waiting):
        flow.submit(frame(number), 0.0)
    if flush:
        flow.end_scan("s", 0.0)
    sizes = []
    while True:
        flow.take(0.0)
        if not flow.in_flight:
            break
        sizes.append(len(flow.in_flight))
        flow.land(sizes[-1], [])
    assert sum(sizes) == (waiting if flush else waiting - waiting % batch)
    assert all(size % batch == 0 and size <= max(batch, at_once) for size in sizes[:-1])


# For real: threads, and an engine that is let go by hand.


class HeldEngine:
    """Takes as many frames as it is let."""

    name, version, precision, device, reason = "held", "1", "float32", "CPU", "a test"
    input_shape = output_shape = SHAPE

    def __init__(self, batch: int) -> None:
        self.batch = batch
        self.calls = threading.Semaphore(0)
        self.inside = threading.Semaphore(0)
        self.free = threading.Event()
        self.sizes: list[int] = []

    def infer(self, counts: NDArray[np.float32], dose_scale: float = 1.0) -> NDArray[np.float32]:  # noqa: ARG002
        if counts.any():  # not the trial before it takes over
            self.sizes.append(len(counts))
            self.inside.release()
            assert self.free.is_set() or self.calls.acquire(timeout=20)
        return np.zeros((len(counts), *SHAPE), np.float32)

    def close(self) -> None:
        pass


@contextmanager
def running(engine: HeldEngine, **options: object) -> Iterator[Pipeline]:
    settings = PipelineSettings.model_validate({"max_latency_s": 5.0, **options})
    pipeline = Pipeline(settings, AttributePositions("x", "y"))
    pipeline.start()
    try:
        pipeline.swap_engine(lambda: engine, CONTRACT).result(10)
        yield pipeline
    finally:
        engine.free.set()
        engine.calls.release()
        assert pipeline.stop(10)


@pytest.mark.parametrize("when_full", ["drop_newest", "drop_oldest"])
def test_a_real_overload_is_bounded_counted_and_over_without_a_restart(when_full: str) -> None:
    engine = HeldEngine(16)
    with running(engine, batch=4, queue_size=40, backlog_batches=4, when_full=when_full) as pipeline:
        for number in range(4):
            pipeline.submit(frame(number))
        assert engine.inside.acquire(timeout=10)
        for number in range(4, 404):
            pipeline.submit(frame(number))
        snapshot = pipeline.snapshot()
        assert (snapshot.queue_used, snapshot.in_flight, snapshot.queue_full) == (40, 4, True)
        assert snapshot.dropped[DropCause.QUEUE_FULL] == 360
        assert snapshot.law_holds
        assert snapshot.busy_s > 0

        engine.free.set()
        engine.calls.release()
        assert pipeline.end_scan("s").result(10) == 44
        assert engine.sizes == [4, 16, 16, 8]
        for number in range(404, 444):  # the same pipeline, the same engine
            pipeline.submit(frame(number))
        assert pipeline.end_scan("s").result(10) == 84
        snapshot = pipeline.snapshot()
        assert (snapshot.stitched, snapshot.pending, snapshot.busy_s) == (84, 0, 0.0)
        assert snapshot.dropped[DropCause.QUEUE_FULL] == 360
        assert snapshot.law_holds


def test_the_policy_changes_while_it_runs() -> None:
    engine = HeldEngine(4)
    with running(engine, batch=4, queue_size=8, when_full="drop_newest") as pipeline:
        for number in range(4):
            pipeline.submit(frame(number))
        assert engine.inside.acquire(timeout=10)
        for number in range(4, 20):
            pipeline.submit(frame(number))
        pipeline.configure(when_full="drop_oldest")
        assert pipeline.snapshot().when_full == "drop_oldest"
        for number in range(20, 24):
            pipeline.submit(frame(number))
        engine.free.set()
        engine.calls.release()
        assert pipeline.end_scan("s").result(10) == 12
        patch = pipeline.snapshot().patch
        assert patch is not None
        assert patch.frame_id == 23


# What the benchmark makes of its counts.


def counts(seconds: int, drop_share: float = 0.5, rate: int = 400, full_from: int = 5) -> list[Sample]:
    samples, dropped = [], 0.0
    for second in range(seconds):
        dropped += 2 * rate * drop_share if second >= full_from else 0
        samples.append(Sample(float(second), 2 * rate * second, rate * second, round(dropped)))
    return samples


def test_the_benchmark_counts_while_the_queue_is_full() -> None:
    found = overload_figures(counts(15), 2032, 4900.0, 800.0, 400.0)
    assert found["rate_hz"] == pytest.approx(400)
    assert found["latency_bound_ms"] == pytest.approx(1e3 * 2032 / 400)
    assert found["drop_share"] == pytest.approx(found["excess_share"]) == 0.5
    assert found["within"]
    assert not overload_figures(counts(15), 2032, 5100.0, 800.0, 400.0)["within"]
    uneven = [sample._replace(time=sample.time + (3.0 if sample.time > 8 else 0.0)) for sample in counts(15)]
    assert overload_figures(uneven, 2032, 5100.0, 800.0, 400.0)["latency_bound_ms"] == pytest.approx(8080)
    assert not overload_figures(counts(15, drop_share=0.56), 2032, 4900.0, 800.0, 400.0)["within"]
    assert overload_figures(counts(15, full_from=14), 2032, 4900.0, 800.0, 400.0) == {"full": False, "within": False}


def test_every_drop_is_of_the_excess() -> None:
    """Nothing else is dropped under overload than under QueueFull, whatever the load does."""
    bench = Simulated(PipelineSettings(queue_size=50), frame_s=1 / 300)
    for rate_hz in (100, 900, 50, 1500, 10):
        bench.run(0.7, rate_hz)
    dropped = Counter({cause: count for cause, count in bench.flow.ledger.dropped.items() if count})
    assert set(dropped) == {DropCause.QUEUE_FULL}
    assert bench.sent == bench.flow.ledger.received


@pytest.mark.parametrize("words", [["--overload", "2"], ["--overload", "1", "--engine", "Auto"]])
def test_an_overload_of_nothing_is_refused(capsys: pytest.CaptureFixture[str], words: list[str]) -> None:
    assert main(["bench", "stream", *words]) == 2
    assert "--overload" in capsys.readouterr().err
