"""The flow of frames in simulated time, so that every figure is exact."""

from __future__ import annotations

from collections import deque

import numpy as np

from ptychostream.frames.frames import Frame
from ptychostream.plugins.flow.batcher import Batcher, frames_at_once
from ptychostream.plugins.flow.frame_flow import FrameFlow
from ptychostream.plugins.pipeline import PipelineSettings
from ptychostream.positions.positions import AttributePositions

SHAPE = (8, 8)
COUNTS = np.ones(SHAPE, np.uint16)


def frame(number: int, x_m: float = 0.0, y_m: float = 0.0) -> Frame:
    return Frame("s", number, 1000.0 + number, COUNTS, {"x": x_m, "y": y_m})


class Simulated:
    """The flow with an engine that takes a known time per frame and per call, one event after the other."""

    def __init__(self, settings: PipelineSettings, frame_s: float, call_s: float = 0.0) -> None:
        at_once = frames_at_once(settings.batch, settings.backlog_batches)
        drop_oldest = settings.when_full == "drop_oldest"
        batcher = Batcher(settings.batch, settings.max_latency_s, settings.queue_size, drop_oldest, at_once)
        self.flow = FrameFlow(AttributePositions("x", "y"), 100, batcher)
        self.flow.decimator.settings = settings.decimation
        self.frame_s, self.call_s = frame_s, call_s
        self.free_at: float | None = None
        self.now = 0.0
        self.sent = 0
        self.latency: list[float] = []
        self.sizes: list[int] = []

    def run(self, seconds: float, rate_hz: float) -> None:
        """Frames at `rate_hz` for so long."""
        end = self.now + seconds
        arrivals = deque(self.now + (i + 1) / rate_hz for i in range(round(seconds * rate_hz)))
        while arrivals or self.now < end:
            due = self.flow.batcher.due(self.now) if self.free_at is None else self.free_at - self.now
            leaves = self.now + due if due is not None else end
            if arrivals and arrivals[0] <= leaves:
                self.now = arrivals.popleft()
                self.flow.submit(frame(self.sent, 5e-8 * (self.sent % 100), 5e-8 * (self.sent // 100)), self.now)
                self.sent += 1
            elif leaves >= end:
                self.now = end
            else:
                self.now = max(self.now, leaves)
            self._engine()
            assert self.flow.holds

    def _engine(self) -> None:
        if self.free_at is not None and self.free_at <= self.now + 1e-12:
            self.latency += [self.free_at - placed.frame.entered for placed in self.flow.in_flight]
            self.flow.decimator.note(len(self.flow.in_flight), self.free_at - self.took)
            self.flow.land(len(self.flow.in_flight), [])
            self.free_at = None
        if self.free_at is None:
            self.flow.take(self.now)
            if self.flow.in_flight:
                self.took = self.now
                self.sizes.append(len(self.flow.in_flight))
                self.free_at = self.now + self.call_s + self.frame_s * len(self.flow.in_flight)
