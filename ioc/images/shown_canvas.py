"""Chooses the scan that the images show: the live one, or a finished one that is kept."""

from __future__ import annotations

from dataclasses import replace

from ptychostream.plugins.mosaic import RunCanvas
from ptychostream.plugins.frame_source import FrameSource
from ptychostream.plugins.flow.snapshot import RunFigures, Snapshot, Stitched


class ShownCanvas:
    """The source of the images: the pipeline with the chosen scan.

    Parameters
    ----------
    pipeline
        Holds the canvases.
    """

    def __init__(self, pipeline: FrameSource) -> None:
        self.wish = 0
        """0: the live canvas. n: the n-th last finished scan, or the live canvas if there is none."""
        self._pipeline = pipeline

    def chosen(self, snapshot: Snapshot) -> RunFigures | None:
        """The finished run that is shown. None: the live one."""
        finished = [run for run in snapshot.runs[1:] if run.stitched]
        return finished[self.wish - 1] if 0 < self.wish <= len(finished) else None

    def snapshot(self) -> Snapshot:
        """The pipeline's figures, with those of the shown scan instead of the live scan."""
        snapshot = self._pipeline.snapshot()
        run = self.chosen(snapshot)
        return snapshot if run is None else replace(snapshot, scan=run.scan, scan_stitched=run.stitched)

    def canvas(self) -> RunCanvas | None:
        """The canvas that is shown."""
        run = self.chosen(self._pipeline.snapshot()) if self.wish else None
        return self._pipeline.canvas(run.number if run is not None else None)

    def stitched(self) -> Stitched | None:
        """The shown canvas as an image; None before there is any."""
        canvas = self.canvas()
        return canvas.stitched() if canvas is not None else None
