"""Frames that were serialised beforehand arrive as any detector's do."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from epics_env import EpicsEnv, wait_until

from ptychostream.frames.frames import Frame
from ptychostream.frames.intake import Intake
from ptychostream.plugins.receiver import Receiver, ReceiverSettings
from ptychostream.sim.replay.prepared_frames import PreparedFrames, serialise, with_attributes

CHANNEL = "prepared:Image"


@pytest.mark.slow
@pytest.mark.parametrize(("dtype", "codec"), [("uint16", ""), ("int32", "lz4"), ("uint8", "bslz4")])
def test_every_frame_arrives_with_its_id_time_attributes_and_pixels(dtype: str, codec: str) -> None:
    patterns = [np.arange(12, dtype=dtype).reshape(3, 4) + number for number in range(2)]
    ring = [
        with_attributes(serialise(pattern, codec), {"x": 0.5 * number, "ScanID": f"s{number}", "n": number})
        for number, pattern in enumerate(patterns)
    ]
    received: list[Frame] = []
    with EpicsEnv() as env, env.active(), PreparedFrames(CHANNEL) as detector:
        connected = threading.Event()
        receiver = Receiver(
            ReceiverSettings(channel=CHANNEL),
            Intake("ScanID", further=("x", "n")),
            received.extend,
            lambda error: pytest.fail(str(error)),
            lambda _: connected.set(),
        )
        receiver.start()
        assert connected.wait(30)
        streamed, first, last = detector.stream(ring, 50, 500.0, threading.Event())
        wait_until(lambda: len(received) == 50, 30, "every frame")
        receiver.stop()
    assert streamed.frames == 50
    assert [frame.id for frame in received] == list(range(50))
    assert (received[0].time, received[-1].time) == pytest.approx((first, last), abs=1e-6)
    for frame in received:
        number = frame.id % 2
        assert frame.scan == f"s{number}"
        assert frame.attributes == {"x": 0.5 * number, "ScanID": f"s{number}", "n": number}
        assert frame.counts.dtype == dtype
        np.testing.assert_array_equal(frame.counts, patterns[number])


@pytest.mark.server
def test_a_stream_ends_early_when_it_is_stopped() -> None:
    with EpicsEnv() as env, env.active(), PreparedFrames(CHANNEL) as detector:
        stop = threading.Event()
        stop.set()
        streamed, _, _ = detector.stream([serialise(np.zeros((3, 4), np.uint8), "")], 10, 1.0, stop)
    assert streamed.frames == 0
