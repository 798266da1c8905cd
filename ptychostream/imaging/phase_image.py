"""A phase image with its position."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptychostream.imaging.pixel_box import PixelBox


@dataclass(frozen=True)
class Spread:
    """How far the patches on each pixel of a stitched image differ.

    Attributes
    ----------
    single
        [H, W] float32, radians: the weighted standard deviation of single patches around their mean, corrected for the
        mean that comes from the same patches. It is not the error of their mean (see `ptychostream.imaging.sigma`).
        NaN where it is not known, because one patch covers the pixel or none.
    number
        [H, W] float32: the effective number of patches, (Σ w)² / Σ w².
    """

    single: NDArray[np.float32]
    number: NDArray[np.float32]


@dataclass(frozen=True)
class PhaseImage:
    """Phase on a regular grid in canvas axes (row = +y, column = +x).

    Attributes
    ----------
    phase
        [H, W] float32, radians. NaN where nothing was measured.
    weight
        [H, W] float32, the accumulated weight. 0 where `phase` is NaN.
    origin_m
        (x, y) of the centre of pixel [0, 0], metres.
    pixel_m
        Pixel size, metres.
    spread
        How far the patches differ; None: not known.
    """

    phase: NDArray[np.float32]
    weight: NDArray[np.float32]
    origin_m: tuple[float, float]
    pixel_m: float
    spread: Spread | None = None

    @property
    def box(self) -> PixelBox:
        """The absolute pixels of the image (see `ptychostream.imaging.stitching`). Empty where it has no pixel."""
        rows, columns = self.phase.shape
        if not self.phase.size:
            return PixelBox(0, 0, 0, 0)
        left, top = (round(origin / self.pixel_m) for origin in self.origin_m)
        return PixelBox(top, left, top + rows, left + columns)


def canvas_part(attributes: Mapping[str, Any]) -> tuple[slice, slice]:
    """Rows and columns of the canvas in a served image, which is a larger square, by the image's attributes."""
    left, top, width, height = (int(attributes[f"Canvas{name}"]) for name in ("Left", "Top", "Width", "Height"))
    return slice(top, top + height), slice(left, left + width)


def canvas_origin_m(attributes: Mapping[str, Any]) -> tuple[float, float]:
    """(x, y) of the centre of the first pixel of `canvas_part`, metres, by the image's attributes."""
    rows, columns = canvas_part(attributes)
    pixel_m = float(attributes["PixelSize"])
    x_m, y_m = float(attributes["OriginX"]), float(attributes["OriginY"])
    return x_m + columns.start * pixel_m, y_m + rows.start * pixel_m
