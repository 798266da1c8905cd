"""The stream hands frames on in order."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

from ptychostream.frames.frames import Frame
from ptychostream.ioc.config.settings import InputSettings
from ptychostream.ioc.scan import stream as stream_module
from ptychostream.ioc.scan.stream import LatestFrame, Stream

COUNTS = np.zeros((3, 5), np.uint16)


class FakeReceiver:
    """Keeps what it was made with."""

    made: FakeReceiver

    def __init__(self, _settings: Any, _intake: Any, sink: Callable[[Sequence[Frame]], None], _on_bad: Any) -> None:
        self.sink = sink
        FakeReceiver.made = self

    def start(self) -> None: ...

    def stop(self) -> None: ...


def test_frames_are_handed_on_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream_module, "Receiver", FakeReceiver)
    heard: list[list[int]] = []
    stream = Stream(lambda together: heard.append([frame.id for frame in together]), lambda _: None, InputSettings())
    stream.subscribe("channel", enabled=True)
    FakeReceiver.made.sink([Frame("s", number, 1.0, COUNTS, raw_id=number) for number in range(3)])
    assert heard == [[0, 1, 2]]
    assert stream.latest_frame == LatestFrame(2, (3, 5), "uint16")
