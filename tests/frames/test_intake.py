"""What a frame's attributes say of its scan, for the IOC, the consumers and the recorder alike."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from ptychostream.frames.frames import Frame
from ptychostream.frames.intake import Intake

COUNTS = np.ones((2, 2), np.uint8)


class Raw(NamedTuple):
    raw_id: int
    time: float
    array: NDArray[np.integer]
    attributes: dict[str, float | int | str]


def test_a_frame_is_named_by_its_attribute_or_by_what_was_told() -> None:
    intake = Intake("ScanID", "End", ("X", "Y"))
    assert intake.wanted == {"ScanID", "End", "X", "Y"}
    assert intake.scan_of({"ScanID": 7}) == "7"
    assert intake.scan_of({"ScanID": ""}) == ""
    assert intake.scan_of({}) == ""
    intake.unnamed = "told"
    assert intake.scan_of({"X": 1.0}) == "told"
    frame = intake.frame(Raw(3, 0.0, COUNTS, {"X": 1.0}), 12.5)
    assert (frame.scan, frame.id, frame.time, frame.received, frame.attributes) == ("told", 3, 12.5, 12.5, {"X": 1.0})
    assert intake.frame(Raw(3, 11.0, COUNTS, {}), 12.5).time == 11.0
    intake.want(("Z",))
    assert intake.wanted == {"ScanID", "End", "Z"}


def test_a_stream_without_names_and_ends() -> None:
    intake = Intake("")
    assert intake.wanted == frozenset()
    assert intake.scan_of({"": "x", "ScanID": "a"}) in ("", "x")
    assert not intake.ends({"End": 1})


@given(st.lists(st.sampled_from([0, 1, "true", "no", None])))
def test_frames_are_cut_after_each_end_and_none_is_lost(marks: list[int | str | None]) -> None:
    attributes = [{} if mark is None else {"End": mark} for mark in marks]
    frames = [Frame("s", number, 1.0, COUNTS, found) for number, found in enumerate(attributes)]
    parts = list(Intake("ScanID", "End").until_ends(frames))
    assert [frame for part, _ in parts for frame in part] == frames
    assert all(part for part, _ in parts)
    for part, ends in parts:
        assert [frame.attributes.get("End") in (1, "true") for frame in part] == [False] * (len(part) - 1) + [ends]
    whole = list(Intake("ScanID").until_ends(frames))
    assert whole == ([(frames, False)] if frames else [])
