"""A phase image with its position."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


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
    """

    phase: NDArray[np.float32]
    weight: NDArray[np.float32]
    origin_m: tuple[float, float]
    pixel_m: float
