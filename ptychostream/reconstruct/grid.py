"""The object's pixel grid, and the patch of each position on it."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ptychostream.errors import ReconstructionError

MAX_OBJECT_PIXELS = 256_000_000
"""The largest object. If it would be larger, positions or geometry probably have a wrong unit."""


@dataclass(frozen=True)
class ObjectGrid:
    """The object's pixel grid.

    Positions are rounded to whole object pixels. The rounding error, at most half a pixel, is small compared to the
    features of a well sampled probe. A sub-pixel shift of the probe would double the number of FFTs.

    Attributes
    ----------
    shape
        (Ho, Wo) pixels.
    origin_m
        (x, y) of the centre of pixel [0, 0], metres.
    pixel_m
        Pixel size, metres.
    corners
        [N, 2] int64 (row, column) of each patch's pixel [0, 0].
    fractions
        [N, 2] float64 (row, column), the position minus the rounded position, object pixels.
    """

    shape: tuple[int, int]
    origin_m: tuple[float, float]
    pixel_m: float
    corners: NDArray[np.int64]
    fractions: NDArray[np.float64]

    @classmethod
    def around(cls, positions_m: NDArray[np.float64], pixel_m: float, width: int, margin: int) -> ObjectGrid:
        """The smallest grid that contains every patch of `width` × `width` pixels and `margin` more on each side.

        Raises
        ------
        ReconstructionError
            Positions are not finite, or are so far apart that the object would be too large.
        """
        bad = np.flatnonzero(~np.isfinite(positions_m).all(axis=1))
        if bad.size:
            raise ReconstructionError(
                f"{bad.size} of {len(positions_m)} positions are not finite, the first at frame {bad[0]}",
                where="positions",
                remedy="leave these frames out of the scan",
            )
        first, last = positions_m.min(axis=0), positions_m.max(axis=0)
        reach = width // 2 + margin
        origin = first - reach * pixel_m
        columns, rows = np.ceil((last - first) / pixel_m) + width + 2 * margin + 1
        if not rows * columns <= MAX_OBJECT_PIXELS:
            raise ReconstructionError(
                f"positions span {last[0] - first[0]:.3g} × {last[1] - first[1]:.3g} m at {pixel_m:.3g} m a pixel",
                where="positions",
                remedy="check the positions' unit, the energy, the distance and the detector's pixel",
            )
        at = ((positions_m - origin) / pixel_m)[:, ::-1]
        nearest = np.rint(at)
        return cls(
            shape=(int(rows), int(columns)),
            origin_m=(float(origin[0]), float(origin[1])),
            pixel_m=pixel_m,
            corners=nearest.astype(np.int64) - width // 2,
            fractions=at - nearest,
        )

    def at(self, corners: NDArray[np.float64]) -> ObjectGrid:
        """The same pixels with other positions: [N, 2] (row, column) of each patch's pixel [0, 0]."""
        nearest = np.rint(corners)
        return replace(self, corners=nearest.astype(np.int64), fractions=corners - nearest)

    def positions_m(self, width: int) -> NDArray[np.float64]:
        """[N, 2] (x, y) of the patches of `width` pixels, metres."""
        centres = (self.corners + self.fractions + width // 2)[:, ::-1]
        positions: NDArray[np.float64] = centres * self.pixel_m + np.asarray(self.origin_m)
        return positions

    def part(self, frames: NDArray[np.int64]) -> ObjectGrid:
        """The same grid with only the positions of `frames`."""
        return replace(self, corners=self.corners[frames], fractions=self.fractions[frames])

    def accumulate(self, footprint: NDArray[np.float32]) -> NDArray[np.float32]:
        """[Ho, Wo] sum of `footprint` [H, W] placed at every position."""
        total = np.zeros(self.shape, np.float32)
        height, width = footprint.shape
        for row, column in self.corners:
            total[row : row + height, column : column + width] += footprint
        return total
