"""A pipeline whose canvas and accounting can be had at one moment: between two batches."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar

from ptychostream.frames import PlacedFrame
from ptychostream.plugins.pipeline import Pipeline, PipelineSettings
from ptychostream.plugins.scan_boundary import BoundarySettings
from ptychostream.positions import PositionSource

T = TypeVar("T")


class ConsumerPipeline(Pipeline):
    """The pipeline of a consumer. Parameters as `Pipeline`."""

    def __init__(self, settings: PipelineSettings, positions: PositionSource, scans: BoundarySettings) -> None:
        super().__init__(settings, positions, scans)
        self._next = threading.Lock()  # who takes `_busy` next: under load the inference thread would take it for ever
        self._busy = threading.Lock()

    def between_batches(self, look: Callable[[], T]) -> T:
        """Call `look` while no batch is inferred or stitched: every stitched frame is on the canvas, no other is."""
        with self._next:
            self._busy.acquire()
        try:
            return look()
        finally:
            self._busy.release()

    def _infer(self, batch: list[PlacedFrame]) -> None:
        self.between_batches(lambda: Pipeline._infer(self, batch))
