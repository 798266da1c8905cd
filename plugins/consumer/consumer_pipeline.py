"""A pipeline whose canvas and figures can be read between two batches, and that can remove a stitched frame."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar, cast

from ptychostream.cluster.id_set import IdSet
from ptychostream.frames.frames import PlacedFrame
from ptychostream.plugins.flow.scan_boundary import BoundarySettings
from ptychostream.plugins.pipeline import Pipeline, PipelineSettings
from ptychostream.plugins.recalling_mosaic import RecallingMosaic
from ptychostream.positions.positions import PositionSource

T = TypeVar("T")


class ConsumerPipeline(Pipeline):
    """The pipeline of a consumer. Parameters as `Pipeline`.

    Parameters
    ----------
    keep_bytes
        Memory of the patches that can be removed again, bytes.
    """

    _mosaic_kind = RecallingMosaic

    def __init__(
        self, settings: PipelineSettings, positions: PositionSource, scans: BoundarySettings, keep_bytes: int
    ) -> None:
        super().__init__(settings, positions, scans)
        self._recalling = cast(RecallingMosaic, self._mosaic)
        self._recalling.keep_bytes = keep_bytes
        self._next = threading.Lock()  # who takes `_busy` next: under load the inference thread would take it for ever
        self._busy = threading.Lock()

    def between_batches(self, read: Callable[[], T]) -> T:
        """Call `read` while no batch is inferred or stitched: every stitched frame is on the canvas, no other is."""
        with self._next:
            self._busy.acquire()
        try:
            return read()
        finally:
            self._busy.release()

    def laid(self, run: int) -> IdSet:
        """Ids of the frames on the canvas of a run; to be called between two batches."""
        return self._recalling.laid(run)

    def take_back(self, run: int, frame_id: int) -> bool:
        """Take a frame off its canvas and count it as a duplicate; to be called between two batches.

        False when it is not on the canvas, or its patch is not kept any more.
        """
        if not self._recalling.take_back(run, frame_id):
            return False
        with self._wake:
            self._flow.take_back(run)
            self._figures.canvases = self._recalling.figures()
        return True

    def _infer(self, batch: list[PlacedFrame]) -> None:
        self.between_batches(lambda: Pipeline._infer(self, batch))
