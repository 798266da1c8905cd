"""The detector of `bench stream` in a separate process. It sends serialised frames at a given rate.

`python -m ptychostream.benchmarks.stream_source SETTINGS`, with the settings as JSON. It prints one line of JSON
when it is ready, and one when all is sent. SIGTERM ends the stream early.
"""

from __future__ import annotations

import json
import sys
import time

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from ptychostream.config import Settings
from ptychostream.errors import ConfigError
from ptychostream.processes.stopping import stop_on_signals
from ptychostream.sim.diffraction import Simulation, expose, set_up
from ptychostream.sim.replay.connections import drain
from ptychostream.sim.replay.gate import Gate
from ptychostream.sim.replay.prepared_frames import PreparedFrames, serialise, with_attributes
from ptychostream.sim.scans import trajectory

DISTINCT_FRAMES = 256
"""The number of different patterns in the ring."""
RING = 1024
"""The number of different positions."""
RING_BYTES = 256 << 20
STEP_M = 50e-9
DOSE = 1e6


class Source(Settings):
    """Settings of the source.

    Attributes
    ----------
    channel, rate_hz, frames
        PVA channel, frames per second, and number of frames.
    shape
        (H, W) of a frame.
    dtype, codec
        Integer type, and codec (see `ptychostream.frames.codecs`).
    wait_for
        PV that must be 1 before the first frame.
    wait_for_client
        Whether a client must have subscribed before the first frame.
    """

    channel: str
    rate_hz: float = Field(gt=0)
    frames: int = Field(ge=1)
    shape: tuple[int, int]
    dtype: str
    codec: str = ""
    wait_for: str = ""
    wait_for_client: bool = False
    timeout_s: float = 60.0


def checked_shape(shape: str, dtype: str, seconds: float, where: str) -> tuple[int, int]:
    """(H, W) from a text such as "128x128". Raises ConfigError if it, the type or the duration is invalid."""
    try:
        height, width = (int(side) for side in shape.lower().split("x"))
        if np.dtype(dtype).kind not in "iu" or min(height, width) < 8 or seconds <= 0:
            raise ValueError
    except (ValueError, TypeError) as error:
        raise ConfigError(
            f"--shape {shape} --dtype {dtype} --seconds {seconds:g}",
            where=where,
            remedy="give a shape such as 128x128, an integer type and a positive duration",
        ) from error
    return height, width


def patterns(shape: tuple[int, int], dtype: str, count: int) -> NDArray[np.integer]:
    """Diffraction patterns [count, H, W] from the simulator. If H and W differ, they are the middle of square ones."""
    size = max(shape)
    bench = set_up(Simulation(frames=count, size=size, step_m=STEP_M, dose=DOSE, dtype="uint32"))
    row, column = (size - shape[0]) // 2, (size - shape[1]) // 2
    frames = np.concatenate([counts for counts, _ in expose(bench)])
    frames = frames[:, row : row + shape[0], column : column + shape[1]]
    return np.minimum(frames, np.iinfo(dtype).max - 1).astype(dtype)


def ring_lengths(source: Source) -> tuple[int, int]:
    """The number of frames in the ring, and the number of different ones."""
    pixels = source.shape[0] * source.shape[1]
    length = int(np.clip(RING_BYTES // (pixels * np.dtype(source.dtype).itemsize), 16, RING))
    return length, min(length, max(16, DISTINCT_FRAMES * 128**2 // pixels), DISTINCT_FRAMES)


def ring(source: Source) -> list[list[bytes]]:
    """The serialised NTNDArrays that are sent repeatedly. The positions are a spiral; the patterns repeat sooner."""
    length, distinct = ring_lengths(source)
    frames = [serialise(frame, source.codec) for frame in patterns(source.shape, source.dtype, distinct)]
    positions_m = trajectory("spiral", length, STEP_M).positions_m
    return [
        with_attributes(
            frames[index % distinct],
            {"ColorMode": 0, "PositionX": float(x), "PositionY": float(y), "ScanID": "bench", "ScanComplete": 0},
        )
        for index, (x, y) in enumerate(positions_m)
    ]


def main(source: Source) -> None:
    """Send, and print the number of sent frames."""
    frames = ring(source)
    with PreparedFrames(source.channel) as detector, stop_on_signals() as stop:
        print(json.dumps({"ready": time.time()}), flush=True)
        gate = Gate(wait_for=source.wait_for, wait_for_client=source.wait_for_client, timeout_s=source.timeout_s)
        if gate.wait(stop):
            streamed, first, last = detector.stream(frames, source.frames, source.rate_hz, stop)
            report = {"sent": streamed.frames, "rate_hz": streamed.rate_hz, "slipped_s": streamed.slipped_s}
            print(json.dumps({**report, "first": first, "last": last}), flush=True)
            drain(stop)


if __name__ == "__main__":
    main(Source.model_validate_json(sys.argv[1]))
