"""What is no measurement never reaches the canvas, and is counted: marks, saturation, dark frames, glitches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from pipeline_helpers import SHAPE, FakeEngine, assert_same, make_contract, make_frame, reference, runs_of

from ptychostream.errors import DropCause
from ptychostream.frames.frames import Frame
from ptychostream.plugins.frame_screen import FrameScreen, MeasuredSettings
from ptychostream.plugins.pipeline import Pipeline, PipelineSettings
from ptychostream.positions.positions import AttributePositions


def with_counts(frame: Frame, counts: NDArray[np.integer[Any]]) -> Frame:
    return replace(frame, counts=counts)


def stitch(frames: Sequence[Frame], mean_counts: float | None = None, **measured: Any) -> Pipeline:
    """A pipeline that these frames have been through, in pieces of three."""
    settings = PipelineSettings(max_latency_s=0.001, backlog_batches=1, measured=MeasuredSettings(**measured))
    pipeline = Pipeline(settings, AttributePositions("x", "y"))
    pipeline.start()
    contract = make_contract().model_copy(update={"mean_counts": mean_counts})
    engine = FakeEngine()
    pipeline.swap_engine(lambda: engine, contract).result(60)
    for first in range(0, len(frames), 3):
        pipeline.submit_all([replace(frame) for frame in frames[first : first + 3]])
        runs_of(pipeline)
    return pipeline


def glitches(count: int = 40) -> tuple[list[Frame], list[int]]:
    """Frames among which some are none, and their numbers."""
    frames = [make_frame(number) for number in range(count)]
    bad = {
        12: np.zeros(SHAPE, np.uint16),  # dark
        13: (np.arange(SHAPE[0] * SHAPE[1]).reshape(SHAPE) % 37 == 0).astype(np.uint16),  # dark but for noise
        20: np.full(SHAPE, 65535, np.uint16),  # every pixel at the mark
        25: np.full(SHAPE, 65534, np.uint16),  # every pixel saturated
        31: (frames[31].counts * np.uint16(90)).astype(np.uint16),  # many times the counts
    }
    for number, counts in bad.items():
        frames[number] = with_counts(frames[number], counts)
    return frames, list(bad)


def test_frames_that_are_no_measurement_are_dropped_and_counted() -> None:
    frames, bad = glitches()
    pipeline = stitch(frames)
    (run,) = runs_of(pipeline)
    assert run.dropped == {DropCause.NOT_MEASURED: len(bad)}
    assert run.stitched == len(frames) - len(bad)
    snapshot = pipeline.snapshot()
    assert snapshot.law_holds
    assert snapshot.dropped[DropCause.NOT_MEASURED] == len(bad)
    assert "counts" in snapshot.message
    assert_same(pipeline.stitched(), reference([frame for frame in frames if frame.id not in bad]))
    assert pipeline.stop()


def test_the_limits_can_be_switched_off_but_nothing_is_never_stitched() -> None:
    frames, _ = glitches()
    pipeline = stitch(frames, dark_share=0, bright_factor=0)
    (run,) = runs_of(pipeline)
    assert run.dropped[DropCause.NOT_MEASURED] == 2  # without counts, and all at the mark
    assert pipeline.stop()


def test_frames_from_which_a_background_was_subtracted_are_dropped_once_they_are_known() -> None:
    random = np.random.default_rng(3)
    frames = [with_counts(make_frame(number), random.poisson(3, SHAPE).astype(np.int32) - 2) for number in range(48)]
    pipeline = stitch(frames)
    (run,) = runs_of(pipeline)
    snapshot = pipeline.snapshot()
    assert run.stitched < 20
    assert run.dropped == {DropCause.NOT_MEASURED: 48 - run.stitched}
    assert "a background was subtracted" in snapshot.message
    assert snapshot.law_holds
    assert pipeline.stop()


def test_marks_below_zero_with_a_glitch_are_no_background() -> None:
    random = np.random.default_rng(3)
    frames = []
    for number in range(48):
        counts = random.poisson(3, SHAPE).astype(np.int32)
        counts[:, 5:8], counts[2, 2] = -1, -2
        if number == 6:
            counts[:] = random.poisson(3, SHAPE)
        frames.append(with_counts(make_frame(number), counts))
    pipeline = stitch(frames)
    (run,) = runs_of(pipeline)
    assert (run.stitched, run.dropped) == (48, {})
    assert pipeline.stop()


def test_marks_are_bad_pixels_whatever_their_value() -> None:
    gap = np.zeros(SHAPE, bool)
    gap[:, 7] = True
    marked, clean = [], []
    for number in range(30):
        frame = make_frame(number)
        counts = frame.counts.astype(np.uint32)
        counts[3, 4] = counts[9, 9] = 65535
        counts[gap] = 2**32 - 2
        marked.append(with_counts(frame, counts))
        clean.append(with_counts(frame, np.where(gap | (counts == 65535), 0, counts)))
    pipeline = stitch(marked)
    assert_same(pipeline.stitched(), reference(clean))
    snapshot = pipeline.snapshot()
    assert snapshot.bad_pixels == snapshot.mark_pixels == 2 + SHAPE[0]
    assert snapshot.patch is not None
    assert snapshot.patch.spec is not None
    assert pipeline.stop()


def test_negative_marks_are_as_good_as_a_mask() -> None:
    frames = [make_frame(number) for number in range(12)]
    marked, clean = [], []
    for frame in frames:
        counts = frame.counts.astype(np.int32)
        counts[0], counts[5, 5] = -1, -2
        marked.append(with_counts(frame, counts))
        clean.append(with_counts(frame, np.maximum(counts, 0)))
    pipeline = stitch(marked)
    assert_same(pipeline.stitched(), reference(clean))
    assert pipeline.stop()


def test_a_saturation_level_in_the_middle_of_a_scan() -> None:
    frames = [make_frame(number) for number in range(32)]
    pipeline = stitch(frames[:16])
    pipeline.configure(measured={"saturation": 250})
    pipeline.submit_all(frames[16:])
    clean = [with_counts(frame, np.where(frame.counts >= 250, 0, frame.counts)) for frame in frames[16:]]
    runs_of(pipeline)
    assert_same(pipeline.stitched(), reference(frames[:16] + clean))
    assert pipeline.stop()


def test_a_saturation_is_proposed() -> None:
    frames = [make_frame(number) for number in range(12)]
    frames = [with_counts(frame, np.minimum(frame.counts, 255)) for frame in frames]
    pipeline = stitch(frames)
    assert pipeline.snapshot().saturation_proposed == 255
    assert pipeline.stop()


def test_dark_frames_before_the_first_light_are_known_by_the_models_dose() -> None:
    frames = [make_frame(number) for number in range(30)]
    for number in range(14):
        frames[number] = with_counts(frames[number], np.eye(*SHAPE, dtype=np.uint16))
    pipeline = stitch(frames, mean_counts=150.0 * SHAPE[0] * SHAPE[1])
    (run,) = runs_of(pipeline)
    assert (run.stitched, run.dropped) == (16, {DropCause.NOT_MEASURED: 14})
    assert pipeline.stop()


def test_a_dark_pause_does_not_become_the_usual() -> None:
    screen = FrameScreen(MeasuredSettings())
    for _ in range(40):
        assert screen.limits(1, [1e4] * 8, None).measured(np.array([1e4])).all()
    for _ in range(100):
        limits = screen.limits(1, [20.0] * 8, None)
        assert not limits.measured(np.array([20.0])).any()
    assert limits.measured(np.array([1e4, 3e4, 2e3])).all()
    assert screen.limits(2, [20.0] * 8, None).measured(np.array([20.0])).all()  # another scan, another exposure


@pytest.mark.parametrize("share", [0.0, 0.2])
def test_new_settings_hold_from_the_next_batch(share: float) -> None:
    screen = FrameScreen(MeasuredSettings())
    screen.limits(1, [1e4] * 8, None)
    screen.settings = MeasuredSettings(dark_share=share)
    assert screen.limits(1, [1e4], None).low == pytest.approx(share * 1e4)
