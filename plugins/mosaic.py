"""The canvas of the scan that is being stitched, and how long its frames took to get there."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

import numpy as np

from ptychostream.contract import ModelContract
from ptychostream.errors import FrameError, GeometryError
from ptychostream.frames import DropCause, PlacedFrame
from ptychostream.plugins.inference import Patches
from ptychostream.plugins.latency import LatencyHistogram
from ptychostream.plugins.snapshot import LatestPatch, Stitched
from ptychostream.stitching import Canvas


@dataclass
class Laid:
    """What became of a batch's patches: frames on the canvas, and those refused with why."""

    stitched: list[PlacedFrame] = field(default_factory=list)
    refused: list[tuple[DropCause, str]] = field(default_factory=list)


class Mosaic:
    """Lays patches on a canvas, one canvas a scan. The inference thread adds; any thread may read or reset.

    Parameters
    ----------
    max_pixels
        Limit of a canvas.
    """

    def __init__(self, max_pixels: int) -> None:
        self._max_pixels = max_pixels
        self._lock = threading.Lock()  # guards what follows; adding to a canvas is the canvas's own affair
        self._contract: ModelContract | None = None
        self._canvas: Canvas | None = None
        self._scan = ""
        self._last: LatestPatch | None = None
        self._latency = LatencyHistogram()

    @property
    def patches(self) -> int:
        """Patches on the canvas."""
        canvas = self._canvas
        return canvas.patches if canvas else 0

    @property
    def latest(self) -> LatestPatch | None:
        return self._last

    def latency_ms(self) -> tuple[float, float, float]:
        """50th, 95th and 99th percentile of this scan, frame time to stitched."""
        with self._lock:
            p50, p95, p99 = self._latency.percentiles(50, 95, 99)
        return 1e3 * p50, 1e3 * p95, 1e3 * p99

    def adopt(self, contract: ModelContract) -> str:
        """Stitch with another model's pixel and patch weight; what is on the canvas stays where the pixel allows.

        Returns
        -------
        str
            Why the canvas begins anew; empty when it goes on.

        Raises
        ------
        GeometryError
            The contract's patch weight is no weight.
        """
        canvas = self._new_canvas(contract)
        message = ""
        if self._canvas is not None and self._canvas.patches:
            try:
                canvas.merge(self._canvas)
            except GeometryError as error:
                message = f"the canvas begins anew: {error.what}"
        with self._lock:
            self._contract, self._canvas = contract, canvas
        return message

    def begin(self, scan: str) -> None:
        """Begin an empty canvas for a new scan."""
        with self._lock:
            self._begin(scan)

    def add(self, patches: Patches, now: float) -> Laid:
        """Lay a batch down. `now` ends its frames' latency."""
        canvas = self._canvas
        assert canvas is not None, "adopt a model first"
        laid = _lay(canvas, patches)
        if laid.stitched:
            last = laid.stitched[-1]
            phase = patches.phase[patches.placed.index(last)].copy()
            with self._lock:
                self._last = LatestPatch(phase, last.frame.scan, last.frame.id, last.x_m, last.y_m)
                self._latency.record([now - placed.frame.time for placed in laid.stitched])
        return laid

    def reset(self) -> None:
        """Begin an empty canvas for the same scan."""
        with self._lock:
            self._begin(self._scan)

    def stitched(self, dose_scale: float) -> Stitched | None:
        """The canvas as an image; None before there is a model."""
        with self._lock:
            canvas, contract, scan, last = self._canvas, self._contract, self._scan, self._last
        if canvas is None or contract is None:
            return None
        frames = canvas.patches
        return Stitched(canvas.image(), scan, frames, last.frame_id if last else -1, contract.name, dose_scale)

    def _begin(self, scan: str) -> None:
        self._scan, self._last = scan, None
        self._latency.clear()
        if self._contract is not None:
            self._canvas = self._new_canvas(self._contract)

    def _new_canvas(self, contract: ModelContract) -> Canvas:
        packed = contract.patch_weight
        weight = np.ones(contract.output_shape, np.float32) if packed is None else packed.unpack()
        return Canvas(contract.object_pixel_m, weight, self._max_pixels)


def _lay(canvas: Canvas, patches: Patches) -> Laid:
    """The whole batch at once, or, where the canvas refuses it, patch by patch, so that a bad one goes alone.

    A place beyond the canvas's limit is no position: it is counted as NoPosition.
    """
    laid = Laid()
    xy_m = np.array([(placed.x_m, placed.y_m) for placed in patches.placed], np.float64).reshape(-1, 2)
    try:
        canvas.add_batch(patches.phase, xy_m)
    except (FrameError, GeometryError):
        for placed, phase in zip(patches.placed, patches.phase, strict=True):
            try:
                canvas.add(phase, placed.x_m, placed.y_m)
            except FrameError as error:
                assert isinstance(error.cause, DropCause)
                laid.refused.append((error.cause, str(error)))
            except GeometryError as error:
                laid.refused.append((DropCause.NO_POSITION, str(error)))
            else:
                laid.stitched.append(placed)
    else:
        laid.stitched.extend(patches.placed)
    return laid
