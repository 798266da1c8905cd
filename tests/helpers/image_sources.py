"""What the image servers serve, told by a test: canvases and refined images of any size."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from ptychostream.imaging.phase_image import PhaseImage
from ptychostream.plugins.flow.snapshot import LatestPatch, RunFigures, Snapshot, Stitched
from ptychostream.plugins.pipeline import Pipeline, PipelineSettings
from ptychostream.plugins.refining.refined import Refined
from ptychostream.positions.positions import AttributePositions
from ptychostream.refine.figures import RefineFigures

PIXEL_M = 1e-8


def run_figures(number: int, active: bool) -> RunFigures:
    """A run of the scan `s`."""
    return RunFigures(number, "s", active, 1, 1, 0, {}, 0, 0.0, None, None, None)


class CanvasSource:
    """A canvas of any content, and a patch."""

    def __init__(self) -> None:
        self.image: PhaseImage | None = None
        self.patch: LatestPatch | None = None
        self.batches = 0
        self._snapshot = Pipeline(PipelineSettings(), AttributePositions("x", "y")).snapshot()

    def show(self, phase: NDArray[np.float32], weight: NDArray[np.float32]) -> None:
        self.image = PhaseImage(phase, weight, (1e-6, 2e-6), PIXEL_M)
        self.patch = LatestPatch(phase, "s", 7, 3e-6, 4e-6, np.arange(6, dtype=np.uint16).reshape(2, 3) + self.batches)
        self.batches += 1

    def run(self, number: int, active: bool) -> None:
        """Begin or end a run of the scan."""
        self._snapshot = replace(self._snapshot, runs=(run_figures(number, active),), scan_active=active)

    def snapshot(self) -> Snapshot:
        return replace(self._snapshot, batches=self.batches, patch=self.patch, model="m")

    def stitched(self) -> Stitched | None:
        runs = self._snapshot.runs
        run = runs[0].number if runs else 0
        return Stitched(self.image, "s", 3, 7, "m", 1.5, run) if self.image is not None else None


class RefinedSource:
    """A refinement that shows what it is told to."""

    def __init__(self) -> None:
        self.latest: Refined | None = None
        self.queued = 0
        self.runs: tuple[RunFigures, ...] = ()

    def show(self, run: int, side: int) -> None:
        """A refined image of `side` × `side` pixels, which grows to the right and downwards."""
        number = self.latest.number + 1 if self.latest is not None else 1
        phase = np.full((side, side), 0.5, np.float32)
        phase[0, 0], phase[-1, -1] = 0.25, np.nan
        weight = np.isfinite(phase).astype(np.float32)
        images = [PhaseImage(array, weight, (0.0, 0.0), PIXEL_M) for array in (phase, phase + 1)]
        self.queued += 10
        self.run(run, active=True)
        figures = RefineFigures(r_factor=0.1, frames=self.queued)
        probe = np.ones((2, 16, 16), np.complex64)
        self.latest = Refined(number, *images, probe, f"s{run}", run, "m", figures, "model", 7, self.queued)

    def run(self, number: int, active: bool) -> None:
        """A run begins, or is over."""
        self.runs = (run_figures(number, active),)
