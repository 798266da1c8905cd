"""A rectangle of absolute pixels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class PixelBox:
    """Absolute pixels [top, bottom) × [left, right)."""

    top: int
    left: int
    bottom: int
    right: int

    @property
    def shape(self) -> tuple[int, int]:
        return self.bottom - self.top, self.right - self.left

    @property
    def pixels(self) -> int:
        return (self.bottom - self.top) * (self.right - self.left)

    def union(self, other: PixelBox) -> PixelBox:
        """The smallest box that contains both."""
        return PixelBox(
            min(self.top, other.top),
            min(self.left, other.left),
            max(self.bottom, other.bottom),
            max(self.right, other.right),
        )

    def intersection(self, other: PixelBox) -> PixelBox | None:
        """The pixels that both contain; None: there are none."""
        top, left = max(self.top, other.top), max(self.left, other.left)
        bottom, right = min(self.bottom, other.bottom), min(self.right, other.right)
        return PixelBox(top, left, bottom, right) if bottom > top and right > left else None

    def widened(self, other: PixelBox) -> PixelBox:
        """The smallest box that contains both, with half its side more at each edge where it grew."""
        base = self.union(other)
        rows, columns = base.shape
        return PixelBox(
            base.top - rows // 2 * (base.top < self.top),
            base.left - columns // 2 * (base.left < self.left),
            base.bottom + rows // 2 * (base.bottom > self.bottom),
            base.right + columns // 2 * (base.right > self.right),
        )

    def around(self, mask: NDArray[np.bool_]) -> PixelBox:
        """The bounding box of the pixels that are set in `mask`, which covers this box; empty if there is none."""
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        if not rows.size:
            return PixelBox(0, 0, 0, 0)
        return PixelBox(
            self.top + int(rows[0]),
            self.left + int(columns[0]),
            self.top + int(rows[-1]) + 1,
            self.left + int(columns[-1]) + 1,
        )

    def contains(self, other: PixelBox) -> bool:
        return (
            self.top <= other.top
            and self.left <= other.left
            and self.bottom >= other.bottom
            and self.right >= other.right
        )

    def slices(self, inner: PixelBox) -> tuple[slice, slice]:
        """Slices of `inner` in an array that covers this box."""
        return (
            slice(inner.top - self.top, inner.bottom - self.top),
            slice(inner.left - self.left, inner.right - self.left),
        )
