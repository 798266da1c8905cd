"""One set of rules for the boundaries of scans: the live canvas and a recording make the same runs of one stream."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from test_record import Sorted

from ptychostream.frames.frames import Frame
from ptychostream.frames.scan_boundary import BoundaryRules
from ptychostream.plugins.flow.batcher import Batcher
from ptychostream.plugins.flow.frame_flow import FrameFlow
from ptychostream.plugins.flow.scan_boundary import BoundarySettings
from ptychostream.positions.positions import AttributePositions
from ptychostream.scans.scan_recording import RecordedFrame

Run = tuple[str, list[int]]
"""Scan id, and the ids of the run's frames in order of arrival."""


@dataclass(frozen=True)
class Sent:
    """One frame of a scripted stream; `time` is its id, in seconds."""

    scan: str
    id: int
    end: bool = False


def live(stream: list[Sent], repeats: bool = False) -> list[Run]:
    """The runs that the flow before the live canvas makes of a stream, oldest first."""
    flow = FrameFlow(AttributePositions("x", "y"), 10, Batcher(1000, 0.0, 1000), BoundarySettings(keep=100, late_s=1e6))
    flow._boundary.rules = BoundaryRules(late_s=1e6, repeats=repeats)
    runs: dict[int, Run] = {}
    for now, sent in enumerate(stream):
        counts = np.ones((4, 4), np.uint16)
        frame = Frame(sent.scan, sent.id, 1e9 + sent.id, counts, {"x": 0.0, "y": 0.0}, flag=sent.end)
        before = sum(flow.ledger.dropped.values())
        flow.submit(frame, float(now))
        if sum(flow.ledger.dropped.values()) == before:
            runs.setdefault(frame.run, (frame.scan, []))[1].append(sent.id)
    return [runs[number] for number in sorted(runs)]


class Recording:
    """In the place of `ScanRecording`: keeps the ids of its frames, and writes no file."""

    def __init__(self, path: Path, shape: tuple[int, int], dtype: np.dtype[Any], *, scan_id: str, **_: Any) -> None:
        self.path, self.shape, self.dtype, self.codec, self.scan_id = path, shape, dtype, "zlib", scan_id
        self.ids: list[int] = []

    @property
    def frames(self) -> int:
        return len(self.ids)

    def append(self, frames: tuple[RecordedFrame, ...], _places: object) -> None:
        self.ids += [frame.id for frame in frames]

    def finish(self, _metadata: object) -> Path:
        return self.path


def recorded(stream: list[Sent]) -> list[Run]:
    """The runs that a recording makes of a stream, in the order in which they began."""
    with patch("ptychostream.recording.record_scans.ScanRecording", Recording):
        run = Sorted(Path("nowhere"), linger_s=1e6)
        for sent in stream:
            run.take(sent.scan, sent.id, end=sent.end)
        run.sorter.finish()
        return [(recording.scan_id, recording.ids) for recording in run.begun]


@st.composite
def streams(draw: st.DrawFn) -> list[Sent]:
    """Scans one after the other, perhaps unnamed, whose frames may be late, come twice, or overtake the end mark."""
    names = draw(st.lists(st.sampled_from(["a", "b", "c", ""]), min_size=1, max_size=4, unique=True))
    order: list[tuple[float, Sent]] = []
    number = 0
    for index, name in enumerate(names):
        count = draw(st.integers(1, 6))
        marked = draw(st.booleans())
        for frame in range(count):
            number += 1
            # the first frame comes before those of later scans; others may come up to two scans late
            late = draw(st.floats(0, 2)) if frame else 0.0
            order.append((index + late + frame * 1e-3, Sent(name, number, marked and frame == count - 1)))
    stream = [sent for _, sent in sorted(order, key=lambda item: item[0])]
    if draw(st.booleans()):
        stream.append(draw(st.sampled_from(stream)))
    return stream


@st.composite
def repeated_streams(draw: st.DrawFn) -> list[Sent]:
    """Frames of any scan in any order."""
    ids = draw(st.lists(st.integers(1, 30), unique=True, max_size=20))
    return [Sent(draw(st.sampled_from(["a", "b", ""])), number, draw(st.booleans())) for number in ids]


@pytest.mark.slow
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(streams())
@example([Sent("a", 1), Sent("a", 3, end=True), Sent("b", 4), Sent("a", 2), Sent("b", 5)])
@example([Sent("", 1), Sent("a", 3), Sent("", 2)])
def test_a_stream_without_repeated_names_has_the_same_runs_live_and_recorded(stream: list[Sent]) -> None:
    assert live(stream) == recorded(stream)


@pytest.mark.slow
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(repeated_streams())
def test_any_stream_has_the_same_runs_under_the_same_rules(stream: list[Sent]) -> None:
    assert live(stream, repeats=True) == recorded(stream)


def test_the_one_difference_is_a_scan_that_is_repeated() -> None:
    stream = [Sent("a", 1), Sent("a", 2), Sent("b", 4), Sent("a", 5)]
    assert recorded(stream) == [("a", [1, 2]), ("b", [4]), ("a", [5])]
    assert live(stream) == [("a", [1, 2, 5]), ("b", [4])]


def levels(scan: str, first: int, flags: str) -> list[Sent]:
    """Frames of a scan, with an end attribute of these digits."""
    return [Sent(scan, first + number, flag == "1") for number, flag in enumerate(flags)]


@pytest.mark.parametrize(
    ("stream", "runs"),
    [
        # it stays up, and is cleared some frames into the next scan
        (levels("a", 1, "0001") + levels("b", 5, "110001") + levels("c", 11, "1111"),
         [("a", [1, 2, 3, 4]), ("b", [5, 6, 7, 8, 9, 10]), ("c", [11, 12, 13, 14])]),
        # it rises some frames before the end, and stays up
        (levels("a", 1, "000111") + levels("b", 7, "0"), [("a", [1, 2, 3, 4, 5, 6]), ("b", [7])]),
        # the same name again: what comes with it up is of the scan that is over
        (levels("a", 1, "0001") + levels("a", 5, "1001"), [("a", [1, 2, 3, 4, 5]), ("a", [6, 7, 8])]),
        (levels("", 1, "001") + levels("", 4, "001"), [("", [1, 2, 3]), ("", [4, 5, 6])]),
        # it is up in every frame of a scan, and in the only one of another
        (levels("a", 1, "111") + levels("b", 4, "1") + levels("c", 5, "01"),
         [("a", [1, 2, 3]), ("b", [4]), ("c", [5, 6])]),
        # a frame of before the end comes after it
        ([Sent("a", 1), Sent("a", 3, True), Sent("a", 2), Sent("a", 4, True)], [("a", [1, 3, 2, 4])]),
        # a frame with the last scan's value comes late
        ([Sent("a", 1, True), Sent("a", 3), Sent("a", 2, True), Sent("a", 4)], [("a", [1, 3, 2, 4])]),
    ],
)  # fmt: skip
@pytest.mark.parametrize("repeats", [False, True])
def test_an_end_attribute_is_a_level(stream: list[Sent], runs: list[Run], repeats: bool) -> None:
    assert recorded(stream) == runs
    assert live(stream, repeats=repeats) == runs
