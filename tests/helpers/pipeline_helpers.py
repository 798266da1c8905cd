"""What the tests of the pipeline share: a deterministic engine, frames, and the canvas that they must give."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptychostream.frames.frames import Frame
from ptychostream.imaging.stitching import Canvas
from ptychostream.model.contract import ModelContract, PackedArray, Preprocessing
from ptychostream.plugins.flow.scan_boundary import BoundarySettings
from ptychostream.plugins.flow.snapshot import RunFigures, Stitched
from ptychostream.plugins.pipeline import Pipeline, PipelineSettings
from ptychostream.positions.positions import AttributePositions

SHAPE = (16, 16)
PIXEL = 1e-8
WEIGHT = np.outer(np.hanning(18)[1:-1], np.hanning(18)[1:-1]).astype(np.float32)


class FakeEngine:
    """Phase = counts · dose · scale, frame by frame. Fails on frames whose first pixel is 666."""

    version = "1"
    precision = "float32"
    device = "CPU"
    reason = "a test"
    input_shape = SHAPE
    output_shape = SHAPE

    def __init__(self, name: str = "fake", batch: int = 8, scale: float = 0.01) -> None:
        self.name = name
        self.batch = batch
        self.scale = np.float32(scale)
        self.sizes: list[int] = []
        self.closed = False
        self.gate = threading.Event()
        self.gate.set()
        self.entered = threading.Event()

    def infer(self, counts: NDArray[np.float32], dose_scale: float = 1.0) -> NDArray[np.float32]:
        assert not self.closed
        if not counts.any():  # the trial before it takes over
            return counts * self.scale
        self.sizes.append(len(counts))
        self.entered.set()
        assert self.gate.wait(10)
        if (counts[:, 0, 0] == 666).any():
            raise RuntimeError("out of memory")
        return counts * np.float32(dose_scale) * self.scale

    def close(self) -> None:
        self.closed = True


def make_contract(name: str = "m1", pixel_m: float = PIXEL, weight: NDArray[np.float32] = WEIGHT) -> ModelContract:
    return ModelContract(
        name=name,
        input_shape=SHAPE,
        output_shape=SHAPE,
        object_pixel_m=pixel_m,
        preprocessing=Preprocessing(),
        patch_weight=PackedArray.pack(weight),
    )


def make_frame(number: int, scan: str = "s", shape: tuple[int, int] = SHAPE, **options: Any) -> Frame:
    rng = np.random.default_rng(number)
    # no pixel has the same count in two of these frames: three that agree by chance are taken for a mark
    counts = ((37 * np.arange(shape[0] * shape[1]) + 13 * number) % 293).reshape(shape).astype(np.uint16)
    x, y = rng.uniform(-3e-7, 3e-7, 2)
    return Frame(scan, number, options.get("time", 1000.0 + number), counts, {"x": x, "y": y})


def reference(frames: list[Frame], scale: float = 0.01, weight: NDArray[np.float32] = WEIGHT) -> Canvas:
    """The same frames stitched one by one."""
    canvas = Canvas(PIXEL, weight)
    for frame in frames:
        phase = frame.counts.astype(np.float32) * np.float32(1) * np.float32(scale)
        canvas.add(phase, float(frame.attributes["x"]), float(frame.attributes["y"]))
    return canvas


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.002)


def assert_same(stitched: Stitched | None, canvas: Canvas) -> None:
    assert stitched is not None
    expected = canvas.image()
    assert stitched.frames == canvas.patches
    assert stitched.image.origin_m == expected.origin_m
    assert np.array_equal(stitched.image.phase, expected.phase, equal_nan=True)
    assert np.array_equal(stitched.image.weight, expected.weight)


@contextmanager
def started(pipeline: Pipeline, engine: FakeEngine | None = None) -> Iterator[Pipeline]:
    """Start it, with this engine if there is one; stop it at the end."""
    pipeline.start()
    try:
        if engine is not None:
            pipeline.swap_engine(lambda: engine, make_contract()).result(60)
        yield pipeline
    finally:
        if engine is not None:
            engine.gate.set()
        assert pipeline.stop(10)


@contextmanager
def running(engine: FakeEngine | None = None, source: Any = None, **scans: Any) -> Iterator[Pipeline]:
    """A started pipeline with these scan settings."""
    settings = PipelineSettings(max_latency_s=0.001, backlog_batches=1)
    pipeline = Pipeline(settings, source or AttributePositions("x", "y"), BoundarySettings(**scans))
    with started(pipeline, engine or FakeEngine()):
        yield pipeline


def runs_of(pipeline: Pipeline) -> list[RunFigures]:
    """The runs, oldest first, when every frame is through."""
    wait_for(lambda: pipeline.snapshot().pending == 0)
    snapshot = pipeline.snapshot()
    assert snapshot.law_holds
    for run in snapshot.runs:
        assert run.received == run.stitched + run.pending + sum(run.dropped.values())
    return list(reversed(snapshot.runs))
