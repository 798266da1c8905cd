"""Where other programs put a patch: on the pixel (n − 1) / 2, which lies between two pixels for an even n.

Ours lies with pixel n // 2 on the position. So the same pixels under the same positions have an origin that differs by
half a pixel for an even size of the patch.
"""

from __future__ import annotations

import numpy as np

from ptychostream.scans.scan import Reconstruction


def object_centre(reconstruction: Reconstruction) -> tuple[float, float]:
    """(x, y) metres of the middle of the object array, by the convention of ptychodus."""
    height, width = reconstruction.object.shape
    rows, columns = reconstruction.probe.shape[-2:]
    x, y = reconstruction.origin_m
    return x + reconstruction.pixel_m * _offset(width, columns), y + reconstruction.pixel_m * _offset(height, rows)


def origin_of(
    centre: tuple[float, float], pixel_m: float, shape: tuple[int, int], patch: tuple[int, int]
) -> tuple[float, float]:
    """(x, y) metres of the centre of object pixel [0, 0] by our convention: the inverse of `object_centre`."""
    return (
        centre[0] - pixel_m * _offset(shape[1], patch[1]),
        centre[1] - pixel_m * _offset(shape[0], patch[0]),
    )


def surround(
    positions: np.ndarray, pixel_m: float, patch: tuple[int, int]
) -> tuple[tuple[int, int], tuple[float, float]]:
    """Shape and origin (x, y) of an object array that holds a patch at every position, with a margin."""
    low, high = positions.min(axis=0), positions.max(axis=0)
    across = np.ceil((high - low) / pixel_m).astype(int) + np.array(patch[::-1]) + 2 * _MARGIN
    origin = low - pixel_m * (np.array(patch[::-1]) // 2 + _MARGIN)
    return (int(across[1]), int(across[0])), (float(origin[0]), float(origin[1]))


_MARGIN = 4


def _offset(size: int, patch: int) -> float:
    return (size - 1) / 2 + patch // 2 - (patch - 1) / 2
