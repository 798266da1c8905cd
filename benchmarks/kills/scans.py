"""The scans of `bench kills`: each pattern and its place follow from the numbers of scan and frame."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

SIDE = 32
FRAMES = 120
RATE_HZ = 150.0
PAUSE_S = 0.5
PIXEL_M = 10e-9


def counts_of(scan: int, frame: int) -> NDArray[np.uint16]:
    """[32, 32] counts of a frame."""
    return np.random.default_rng([scan, frame]).poisson(8.0, (SIDE, SIDE)).astype(np.uint16)


def place_of(frame: int) -> tuple[float, float]:
    """(x, y) of a frame, m."""
    return frame % 12 * 4 * PIXEL_M, frame // 12 * 4 * PIXEL_M
