"""What a served image is made of: its pixels, where they lie, and its attributes."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from ptychostream.imaging.phase_image import PhaseImage
from ptychostream.imaging.pixel_box import PixelBox
from ptychostream.plugins.flow.snapshot import LatestPatch, Snapshot, Stitched
from ptychostream.pva.reading import Scalar


@dataclass(frozen=True)
class ServedArea:
    """Where the served images lie: the pixels of the canvas, those of the images, absolute; pixel size in metres."""

    canvas: PixelBox
    image: PixelBox
    pixel_m: float

    @property
    def shape(self) -> tuple[int, int]:
        """[H, W] of the images."""
        return self.image.shape

    @property
    def image_um(self) -> tuple[float, float, float, float]:
        """Left, right, top and bottom edge of the images, µm. NaN before a canvas is served."""
        return self._edges_um(self.image)

    @property
    def canvas_um(self) -> tuple[float, float, float, float]:
        """Left, right, top and bottom edge of the canvas, µm. NaN before it has a pixel."""
        return self._edges_um(self.canvas)

    def _edges_um(self, box: PixelBox) -> tuple[float, float, float, float]:
        if not (box.pixels and self.pixel_m):
            return (math.nan,) * 4
        pixel_um = 1e6 * self.pixel_m
        return tuple(pixel_um * (edge - 0.5) for edge in (box.left, box.right, box.top, box.bottom))  # type: ignore[return-value]

    @property
    def part(self) -> tuple[slice, slice]:
        """Rows and columns of the canvas in the image."""
        return self.image.slices(self.canvas) if self.canvas.pixels else (slice(0, 0), slice(0, 0))


def displayed(image: PhaseImage, box: PixelBox) -> tuple[PhaseImage, float]:
    """The image that is served, and the value of its pixels without a measurement.

    Parameters
    ----------
    image
        NaN and weight 0 where nothing was measured.
    box
        Absolute pixels to show. They contain those of the image.

    Returns
    -------
    image, fill
        An image of the size of `box`. Where its weight is 0, its phase is the mean of the measured pixels. `fill` is
        that mean, which is exact in float32; 0 where nothing was measured.
    """
    used, pixel_m = image.box, image.pixel_m
    measured = image.weight > 0
    count = int(np.count_nonzero(measured))
    fill = np.float32(np.sum(image.phase, where=measured, dtype=np.float64) / count if count else 0.0)
    phase, weight = np.full(box.shape, fill, np.float32), np.zeros(box.shape, np.float32)
    if used.pixels:
        inner = box.slices(used)
        np.copyto(phase[inner], image.phase, where=measured)
        weight[inner] = image.weight
    return PhaseImage(phase, weight, (box.left * pixel_m, box.top * pixel_m), pixel_m), float(fill)


def place_attributes(image: PhaseImage) -> dict[str, Scalar]:
    """Size of a pixel, and the place of the first one, metres."""
    x_m, y_m = image.origin_m
    return {"PixelSize": float(image.pixel_m), "OriginX": float(x_m), "OriginY": float(y_m)}


def canvas_attributes(part: tuple[slice, slice]) -> dict[str, Scalar]:
    """Which pixels of an image, which is a larger square, belong to the canvas: rows and columns."""
    rows, columns = part
    return {
        "CanvasLeft": columns.start,
        "CanvasTop": rows.start,
        "CanvasWidth": columns.stop - columns.start,
        "CanvasHeight": rows.stop - rows.start,
    }


def phase_attributes(stitched: Stitched, sha256: str, fill: float, part: tuple[slice, slice]) -> dict[str, Scalar]:
    """Attributes of Phase and Weight: scan, model, the first pixel's place in metres; `fill` in rad."""
    return {
        "ScanID": stitched.scan,
        "ModelVersion": stitched.model,
        "ModelSHA": sha256,
        "DoseScale": float(stitched.dose_scale),
        **place_attributes(stitched.image),
        "FramesStitched": int(stitched.frames),
        "LastFrameId": int(stitched.last_frame_id),
        "FillValue": fill,
        **canvas_attributes(part),
    }


def patch_attributes(patch: LatestPatch, snapshot: Snapshot, sha256: str) -> dict[str, Scalar]:
    """Attributes of the latest patch: scan, model, and the position of its centre in metres."""
    return {
        "ScanID": patch.scan,
        "ModelVersion": snapshot.model,
        "ModelSHA": sha256,
        "DoseScale": float(snapshot.dose_scale),
        "PositionX": float(patch.x_m),
        "PositionY": float(patch.y_m),
        "LastFrameId": int(patch.frame_id),
    }
