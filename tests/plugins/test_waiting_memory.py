"""Frames that wait take no more memory than they may, and every one that gives way is counted."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from pipeline_helpers import make_contract

from ptychostream.errors import DropCause, FrameError
from ptychostream.frames.frames import Frame
from ptychostream.ioc.config.settings import InputSettings
from ptychostream.ioc.scan import stream as stream_module
from ptychostream.ioc.scan.stream import Stream
from ptychostream.model.contract import ModelContract, PackedArray, Preprocessing
from ptychostream.model.raw_shape import raw_bytes, shape_judge
from ptychostream.plugins.pipeline import Pipeline, PipelineSettings
from ptychostream.positions.join import Join
from ptychostream.positions.positions import AttributePositions, WaveformPositions
from ptychostream.pva import reading
from ptychostream.pva.reading import decode_taken

MIB = 1 << 20


def frame(number: int, pixels: int = 512) -> Frame:
    return Frame("s", number, float(number), np.zeros((pixels, pixels), np.uint16), {})


def test_frames_without_positions_are_bounded_by_bytes() -> None:
    join = Join(WaveformPositions(), 100, max_bytes=4 * MIB)  # eight frames of half a MiB
    dropped = [one for number in range(20) for one in join.add(frame(number)).dropped]
    assert [gone.id for gone, _ in dropped] == list(range(12))
    assert {cause for _, cause in dropped} == {DropCause.NO_POSITION}
    assert (join.waiting, join.held_bytes) == (8, 4 * MIB)
    join.give_up(lambda _: True)
    assert join.held_bytes == 0


def test_one_frame_waits_whatever_its_size() -> None:
    join = Join(WaveformPositions(), 100, max_bytes=1)
    assert [gone.id for number in range(3) for gone, _ in join.add(frame(number)).dropped] == [0, 1]


def test_a_pipeline_holds_what_its_settings_allow_and_tells_it() -> None:
    pipeline = Pipeline(PipelineSettings(queue_memory=12.0, join_size=1000), WaveformPositions())
    pipeline.submit_all([frame(number) for number in range(40)])
    seen = pipeline.snapshot()
    assert (seen.queue_memory, seen.queue_memory_used) == (12.0, 4.0)  # a third for the frames without a position
    assert (seen.waiting_position, seen.dropped[DropCause.NO_POSITION]) == (8, 32)
    assert seen.law_holds
    pipeline.configure(queue_memory=6.0)
    pipeline.submit(frame(40))
    assert pipeline.snapshot().queue_memory_used == 2.0
    assert pipeline.snapshot().law_holds
    pipeline.set_positions(AttributePositions("x", "y"))
    assert pipeline.snapshot().queue_memory_used == 0.0


def test_the_default_is_a_quarter_of_the_memory() -> None:
    assert PipelineSettings().memory_bytes >= 1 << 30
    assert PipelineSettings(queue_memory=3.0).waiting_bytes == MIB


def contract(**preprocessing: object) -> ModelContract:
    return make_contract().model_copy(update={"preprocessing": Preprocessing(**preprocessing)})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("preprocessing", "good", "bad"),
    [
        ({}, [(16, 16)], [(16, 17), (8, 32), (2048, 2048)]),
        ({"bin": 2}, [(32, 32)], [(16, 16)]),
        ({"crop": (1, 2, 16, 16)}, [(17, 18), (400, 18)], [(16, 18), (17, 17)]),
        ({"bad_pixels": PackedArray.pack(np.zeros((20, 16), bool))}, [(20, 16)], [(16, 16), (40, 16)]),
    ],
)
def test_a_contract_says_which_raw_frames_it_takes(
    preprocessing: dict[str, object], good: list[tuple[int, int]], bad: list[tuple[int, int]]
) -> None:
    of = contract(**preprocessing)
    assert [shape_judge(of)(shape) for shape in good] == [""] * len(good)
    assert all("the model m1 takes" in shape_judge(of)(shape) for shape in bad)


def test_a_frame_of_another_shape_is_refused_before_it_is_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    decoded: list[str] = []
    monkeypatch.setattr(reading, "decompress", lambda *_: decoded.append("decoded"))
    packed = ("lz4", 6, 100, 2 * 2048 * 2048, False)
    update = (7, 1.0, bytes(100), 5, 2048, 2048, {}, packed)
    with pytest.raises(FrameError, match="2048 × 2048, the model m1 takes 16 × 16") as told:
        decode_taken(update, (), shape_judge(contract()))
    assert (told.value.cause, told.value.raw_id, decoded) == (DropCause.SHAPE, 7, [])


def test_the_subscription_asks_for_no_more_updates_than_the_memory_holds() -> None:
    def nothing(_: Sequence[Frame]) -> None:
        return None

    stream = Stream(nothing, lambda _: None, InputSettings(queue_size=2000), 64 * MIB)
    assert stream._queue() == 2000
    stream.expect_shape(contract())
    assert stream._queue() == 2000
    large = make_contract().model_copy(update={"input_shape": (2048, 2048)})
    stream.expect_shape(large)
    assert raw_bytes(large) == 16 * MIB
    assert stream._queue() == 8  # the least
    stream._waiting_bytes = 640 * MIB
    assert stream._queue() == 40


def test_a_subscription_is_renewed_where_larger_frames_would_fill_more(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Any] = []

    class FakeReceiver:
        def __init__(self, settings: Any, *_: Any) -> None:
            made.append(self)
            self.asked, self.held, self.steps = settings.queue_size, SimpleNamespace(count=0), ["made"]

        def start(self) -> None:
            self.steps.append("started")

        def stop(self) -> None:
            self.steps.append("stopped")

    monkeypatch.setattr(stream_module, "Receiver", FakeReceiver)
    stream = Stream(lambda _: None, lambda _: None, InputSettings(queue_size=2000), 64 * MIB)
    stream.subscribe(channel="c", enabled=True)
    stream.expect_shape(contract())
    assert [one.asked for one in made] == [2000]
    stream.expect_shape(make_contract().model_copy(update={"input_shape": (2048, 2048)}))
    assert [(one.asked, one.steps) for one in made] == [
        (2000, ["made", "started", "stopped"]),
        (8, ["made", "started"]),
    ]
    assert "takes 2048 × 2048" in made[1].shape_fault((16, 16))
