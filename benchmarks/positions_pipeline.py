"""Measure a pipeline without an engine that places frames by attributes, or by a simulated PandABox.

`python -m ptychostream.benchmarks.positions_pipeline attributes|panda FPS SAMPLES_PER_S SECONDS` prints a line of JSON.
The box is a process of its own, which this one starts.
"""

from __future__ import annotations

import json
import sys
import time
from contextlib import ExitStack
from typing import Any

import numpy as np

from ptychostream.errors import DropCause
from ptychostream.frames.frames import Frame
from ptychostream.ioc.config.settings import PositionIndexSettings
from ptychostream.ioc.scan.position_feed import PandaFeed
from ptychostream.panda.settings import PandaSettings
from ptychostream.plugins.pipeline import Pipeline
from ptychostream.plugins.pipeline_settings import PipelineSettings
from ptychostream.positions.positions import AttributePositions, AxisConfig

BURST_S = 0.01
NO_COUNTS = np.zeros((1, 1), np.uint16)


def main(kind: str, fps: float, sample_hz: float, seconds: float) -> None:
    """Send frames in real time, and report the processor time of this process."""
    with ExitStack() as stack:
        positions: Any = AttributePositions("X", "Y")
        feed, box = None, None
        if kind == "panda":
            box = stack.enter_context(_Box(sample_hz))
            index = PositionIndexSettings(samples_per_frame=round(sample_hz / fps), first_frame_id=0)
            settings = PandaSettings(host="127.0.0.1", control_port=box.ports[0], data_port=box.ports[1])
            feed = PandaFeed(settings, index, AxisConfig(), lambda text: print(text, file=sys.stderr))
            positions = feed.source
        pipeline = Pipeline(PipelineSettings(join_size=100_000, queue_size=100_000), positions)
        stack.callback(pipeline.stop)
        pipeline.start()
        if feed is not None and box is not None:
            feed.connect(pipeline)
            feed.subscribe(wanted=True)
            stack.callback(feed.stop)
            while not feed.connected:
                time.sleep(0.01)
            box.arm(seconds + 0.5)
        begin, used = time.monotonic(), time.process_time()
        number, total = 0, round(fps * seconds)
        while number < total:
            now = time.monotonic() - begin
            due = min(round(now * fps), total)
            arrived = time.time()
            frames = [
                Frame("scan", one, arrived, NO_COUNTS, {"X": 1e-6, "Y": 2e-6}, arrived) for one in range(number, due)
            ]
            if frames:
                pipeline.submit_all(frames)
            number = due
            time.sleep(BURST_S)
        cores = (time.process_time() - used) / (time.monotonic() - begin)
        deadline = time.monotonic() + 10
        while pipeline.snapshot().waiting_position and time.monotonic() < deadline:
            time.sleep(0.05)
        figures = pipeline.snapshot()
        lost = figures.waiting_position + figures.dropped.get(DropCause.NO_POSITION, 0)
        print(json.dumps({"cores": cores, "frames": total, "placed": total - lost}), flush=True)


class _Box:
    """The box's process."""

    def __init__(self, sample_hz: float) -> None:
        import subprocess

        command = [sys.executable, "-m", "ptychostream.benchmarks.positions_source", str(sample_hz)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        self.ports = json.loads(self._process.stdout.readline())

    def __enter__(self) -> _Box:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.communicate()

    def arm(self, seconds: float) -> None:
        """Begin a capture of so many seconds."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{seconds}\n")
        self._process.stdin.flush()


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]), float(sys.argv[3]), float(sys.argv[4]))
