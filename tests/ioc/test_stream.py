"""The stream hands frames on in order, and tells a scan's end between its last frame and the next."""

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


def frames(*ends: int, scan: str = "s") -> list[Frame]:
    """One for each, its end attribute."""
    return [Frame(scan, number, 1.0, COUNTS, {"ScanComplete": end}) for number, end in enumerate(ends)]


@pytest.mark.parametrize(
    ("ends", "said"),
    [
        ((0, 0, 0), [[0, 1, 2]]),
        ((0, 1, 0, 0), [[0, 1], "end s", [2, 3]]),
        ((0, 0, 1), [[0, 1, 2], "end s"]),
        ((1, 1), [[0], "end s", [1], "end s"]),
    ],
)
def test_the_end_is_told_after_the_scans_last_frame(
    monkeypatch: pytest.MonkeyPatch, ends: tuple[int, ...], said: list[Any]
) -> None:
    monkeypatch.setattr(stream_module, "Receiver", FakeReceiver)
    heard: list[Any] = []
    settings = InputSettings(end_attribute="ScanComplete")
    stream = Stream(
        lambda together: heard.append([frame.id for frame in together]),
        lambda _: None,
        settings,
        lambda scan: heard.append(f"end {scan}"),
    )
    stream.subscribe("channel", enabled=True)
    FakeReceiver.made.sink(frames(*ends))
    assert heard == said
    assert stream.latest_frame == LatestFrame(len(ends) - 1, (3, 5), "uint16")
