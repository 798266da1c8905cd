"""Stitching: phase patches are added to a canvas. The canvas depends only on the set of patches.

The image is the weighted mean, Σ w·phase / Σ w. Both sums are exact integers (`stitching_kernels`), so the same set of
patches gives the same canvas bit for bit, in any order, and also if it is divided among several canvases that are then
merged. The pixel grid is absolute: the centre of pixel (row, column) is at (column, row) · pixel_m for every canvas.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ptychostream.errors import DropCause, FrameError, GeometryError
from ptychostream.imaging import spread_kernels
from ptychostream.imaging import stitching_kernels as kernels
from ptychostream.imaging.phase_image import PhaseImage, Spread
from ptychostream.imaging.pixel_box import PixelBox


@dataclass(frozen=True)
class CanvasState:
    """The exact content of a canvas. It can be pickled.

    Attributes
    ----------
    pixel_m
        Pixel size, metres.
    row0, column0
        Absolute row and column of pixel [0, 0].
    value, weight
        [H, W] int64 accumulators, trimmed to the pixels with a weight.
    patches
        Number of added patches.
    square, weight_squared
        [H, W] int64 accumulators of the spread; None: the canvas has none (see `Canvas`).
    """

    pixel_m: float
    row0: int
    column0: int
    value: NDArray[np.int64]
    weight: NDArray[np.int64]
    patches: int
    square: NDArray[np.int64] | None = None
    weight_squared: NDArray[np.int64] | None = None

    @property
    def sums(self) -> tuple[NDArray[np.int64], ...]:
        """The accumulators: value and weight, then those of the spread where there are any."""
        if self.square is None or self.weight_squared is None:
            return self.value, self.weight
        return self.value, self.weight, self.square, self.weight_squared


_EMPTY = PixelBox(0, 0, 0, 0)


class Canvas:
    """Accumulates patches. Several threads may add and read at the same time.

    Parameters
    ----------
    pixel_m
        Pixel size of patches and canvas, metres.
    patch_weight
        [h, w] ≥ 0, the weight of each patch pixel (see `ptychostream.imaging.probe_weight`). It is scaled to a maximum
        of 1 and rounded to 1/1024. All ones give every pixel the same weight.
    max_pixels
        The largest bounding box of the added patches, in pixels of 16 bytes, or 32 with the spread.
    spread
        Whether the spread of the patches on each pixel is accumulated too (`spread_kernels`).

    Notes
    -----
    Phases are rounded to 2⁻¹⁶ rad, positions to 1/64 pixel. A pixel can hold at least 10 million patches of phase π at
    full weight. A patch that could overflow a pixel is refused with a GeometryError. The kernels are compiled when the
    constructor returns.
    """

    def __init__(
        self, pixel_m: float, patch_weight: ArrayLike, max_pixels: int = 64_000_000, spread: bool = False
    ) -> None:
        if not (np.isfinite(pixel_m) and pixel_m > 0):
            raise GeometryError(f"pixel size {pixel_m} m", where="canvas", remedy="give the object pixel in metres")
        self.pixel_m = float(pixel_m)
        self.max_pixels = max_pixels
        footprint = _quantise_weight(np.asarray(patch_weight))
        self.patch_shape: tuple[int, int] = footprint.shape
        rows, columns = np.flatnonzero(footprint.any(axis=1)), np.flatnonzero(footprint.any(axis=0))
        self._row0, self._column0 = int(rows[0]), int(columns[0])
        height, width = self.patch_shape
        self._footprint_box = np.array(
            [rows[0] - height // 2, columns[0] - width // 2, np.ptp(rows) + 1, np.ptp(columns) + 1], np.int64
        )
        self._footprint = np.ascontiguousarray(footprint[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1])
        self._lock = threading.Lock()
        self._patches = 0
        self._used = _EMPTY  # bounding box of the pixels with weight > 0
        self._held = _EMPTY  # the box that the arrays cover; it contains `_used`
        # Value and weight, then square and weight squared where the spread is accumulated.
        self._sums = tuple(np.zeros((0, 0), np.int64) for _ in range(4 if spread else 2))
        self._peak_sum = 0  # sum of the patches' largest quantised phases, an upper bound of every accumulator

    @property
    def patches(self) -> int:
        """Number of added patches."""
        return self._patches

    @property
    def nbytes(self) -> int:
        """Memory of the accumulators in bytes."""
        return sum(array.nbytes for array in self._sums)

    @property
    def has_spread(self) -> bool:
        """Whether the spread of all its patches is known."""
        return len(self._sums) == 4

    def want_spread(self, wanted: bool) -> bool:
        """Accumulate the spread from now on, or no more. Returns `has_spread`.

        A canvas that has patches already cannot begin: the squares of those are not known.
        """
        with self._lock:
            if not wanted:
                self._sums = self._sums[:2]
            elif not self.has_spread and self._patches == 0:
                self._sums += tuple(np.zeros(self._held.shape, np.int64) for _ in range(2))
            return self.has_spread

    def add(self, patch: NDArray[np.float32], x_m: float, y_m: float) -> None:
        """Add one [h, w] patch (rad) with its pixel [h//2, w//2] at (x_m, y_m). Raises the errors of `add_batch`."""
        self.add_batch(np.asarray(patch)[np.newaxis], np.array([[x_m, y_m]], np.float64))

    def add_batch(self, patches: NDArray[np.float32], xy_m: ArrayLike) -> None:
        """Add [B, h, w] patches (rad) at [B, 2] positions (x, y) in metres. If it raises, none is added.

        Raises
        ------
        FrameError
            Cause ENGINE: a value is not finite or outside ±10π rad. Cause SHAPE: the shape is not [B, h, w].
        GeometryError
            A position is not finite, or the canvas would exceed `max_pixels`, the range of its integers or the memory.
        """
        batch = np.ascontiguousarray(patches, np.float32)
        xy = np.ascontiguousarray(xy_m, np.float64)
        if batch.ndim != 3 or batch.shape[1:] != self.patch_shape or xy.shape != (len(batch), 2):
            raise FrameError(
                DropCause.SHAPE,
                f"patches {batch.shape} at positions {xy.shape} on a canvas for patches {self.patch_shape}",
                where="canvas",
                remedy="the model's output_shape must be that of the patch weight",
            )
        if len(batch) == 0:
            return
        peak = np.empty(len(batch), np.int64)
        kernels.peaks(batch, peak)
        if peak.min() < 0:
            index = int(np.argmin(peak))
            raise FrameError(
                DropCause.ENGINE,
                f"the patch at {_text(xy[index])} has values that are not finite or outside ±10π rad",
                where="canvas",
                remedy="check the model and its precision",
            )
        places, reach = self._places(xy)
        peak_sum = int(peak.sum())
        with self._lock:
            self._reserve_headroom(peak_sum)
            used = reach.union(self._used) if self._patches else reach
            if used.pixels > self.max_pixels:
                raise self._too_large(used, xy)
            self._grow(used)
            places[:, 0] -= self._held.top
            places[:, 1] -= self._held.left
            what = (batch, self._footprint, self._row0, self._column0, places)
            kernels.accumulate(*self._sums[:2], *what)
            if self.has_spread:
                spread_kernels.accumulate_spread(*self._sums[2:], *what)
            self._used = used
            self._patches += len(batch)
            self._peak_sum += peak_sum

    def merge(self, other: Canvas) -> None:
        """Add the content of `other`. `other` is unchanged and may have another patch weight.

        Where `other` has patches and no spread, this canvas has none any more.

        Raises
        ------
        GeometryError
            The pixel sizes differ, or the canvas would exceed `max_pixels` or the range of its integers.
        """
        self.merge_state(other.state())

    def merge_state(self, state: CanvasState) -> None:
        """Add the content of another canvas, which may come from another process. Raises the errors of `merge`."""
        if state.pixel_m != self.pixel_m:
            raise GeometryError(
                f"pixel size {state.pixel_m} m on a canvas of {self.pixel_m} m",
                where="canvas",
                remedy="merge canvases of one geometry only",
            )
        if state.patches == 0:
            return
        rows, columns = state.value.shape
        box = PixelBox(state.row0, state.column0, state.row0 + rows, state.column0 + columns)
        peak = _peak(state.value)
        with self._lock:
            self._reserve_headroom(peak)
            used = box.union(self._used) if self._patches else box
            if used.pixels > self.max_pixels:
                raise GeometryError(
                    f"merging makes {used.shape[0]} × {used.shape[1]} pixels of canvas, more than {self.max_pixels}",
                    where="canvas",
                    remedy="raise max_pixels",
                )
            self._grow(used)
            if len(state.sums) < len(self._sums):
                self._sums = self._sums[:2]
            inner = self._held.slices(box)
            for mine, theirs in zip(self._sums, state.sums, strict=False):
                mine[inner] += theirs
            self._used = used
            self._patches += state.patches
            self._peak_sum += peak

    def subtract_state(self, state: CanvasState) -> None:
        """Remove a content that was added before. The canvas is then exactly as if it had never been added.

        Raises
        ------
        GeometryError
            The pixel sizes differ, or the content was never added here.
        """
        rows, columns = state.value.shape
        box = PixelBox(state.row0, state.column0, state.row0 + rows, state.column0 + columns)
        with self._lock:
            inner = self._held.slices(box)
            known = state.pixel_m == self.pixel_m and state.patches <= self._patches and self._used.contains(box)
            if not known or (self._sums[1][inner] < state.weight).any():
                what = f"{state.patches} patches of {state.pixel_m} m pixels were never added"
                raise GeometryError(what, where="canvas", remedy="remove only what was added")
            if len(state.sums) < len(self._sums):
                self._sums = self._sums[:2]
            for mine, theirs in zip(self._sums, state.sums, strict=False):
                mine[inner] -= theirs
            self._patches -= state.patches
            self._used = self._covered()

    def state(self) -> CanvasState:
        """An exact copy of the content, for merging in another process."""
        with self._lock:
            box = self._used
            inner = self._held.slices(box)
            value, weight, *spread = (array[inner].copy() for array in self._sums)
            return CanvasState(self.pixel_m, box.top, box.left, value, weight, self._patches, *spread)

    @classmethod
    def from_state(cls, state: CanvasState, patch_weight: ArrayLike, max_pixels: int = 64_000_000) -> Canvas:
        """A canvas with the content `state`. Raises GeometryError if it has more than `max_pixels`."""
        canvas = cls(state.pixel_m, patch_weight, max_pixels, state.square is not None)
        canvas.merge_state(state)
        return canvas

    def image(self) -> PhaseImage:
        """The stitched phase, trimmed to the pixels with a weight. An empty canvas gives 0 × 0 pixels.

        The unit of `weight` is patches: a pixel that one patch covers at full weight has 1. `spread` is that of the
        same patches, where the canvas has it.
        """
        # New memory costs more time than the division, so it is allocated and written once before the lock is taken.
        box, made = self._used, [np.full(self._used.shape, 0, np.float32) for _ in self._sums]
        with self._lock:
            if box != self._used or len(made) != len(self._sums):
                box, made = self._used, [np.empty(self._used.shape, np.float32) for _ in self._sums]
            inner = self._held.slices(box)
            sums = [array[inner] for array in self._sums]
            kernels.divide(*sums[:2], *made[:2])
            if self.has_spread:
                spread_kernels.divide_spread(*sums, *made[2:])
        phase, weight, *rest = made
        spread = Spread(*rest) if rest else None
        return PhaseImage(phase, weight, (box.left * self.pixel_m, box.top * self.pixel_m), self.pixel_m, spread)

    def _places(self, xy: NDArray[np.float64]) -> tuple[NDArray[np.int64], PixelBox]:
        """The places for `stitching_kernels.accumulate`, on the absolute grid, and the box that they cover."""
        places, box = np.empty((len(xy), 4), np.int64), np.empty(4, np.int64)
        bad = kernels.place(xy, self.pixel_m, self._footprint_box, places, box)
        if bad >= 0:
            raise GeometryError(
                f"position {_text(xy[bad])} cannot be placed",
                where="canvas",
                remedy="check the position source and its unit",
            )
        return places, PixelBox(*box.tolist())

    def _too_large(self, used: PixelBox, xy: NDArray[np.float64]) -> GeometryError:
        seen, centre = self._used, xy[0]
        if self._patches:
            centre = np.array([seen.left + seen.right, seen.top + seen.bottom]) * self.pixel_m / 2
        farthest = xy[int(np.argmax(np.abs(xy - centre).max(axis=1)))]
        return GeometryError(
            f"position {_text(farthest)} makes {used.shape[0]} × {used.shape[1]} pixels of canvas, "
            f"more than {self.max_pixels}",
            where="canvas",
            remedy="check the position's unit and pixel size, reset the canvas, or raise max_pixels",
        )

    def _covered(self) -> PixelBox:
        """The bounding box of the pixels with a weight."""
        return self._used.around(self._sums[1][self._held.slices(self._used)] > 0)

    def _grow(self, used: PixelBox) -> None:
        """Enlarge the arrays to cover `used`, by at least half their side, so that they are seldom enlarged."""
        if self._held.contains(used) and self._held.pixels:
            return
        old = self._held if self._held.pixels else used
        # Only `_used` must be kept. Memory that was never used does not count against the limit.
        held = next((box for box in (old.widened(used), old.union(used)) if box.pixels <= self.max_pixels), used)
        try:
            sums = tuple(np.zeros(held.shape, np.int64) for _ in self._sums)
        except MemoryError as error:
            raise GeometryError(
                f"no memory for {held.shape[0]} × {held.shape[1]} pixels",
                where="canvas",
                remedy="limit the field of view or max_canvas_pixels, or keep fewer finished canvases",
            ) from error
        kept = self._used
        if kept.pixels:
            for new, before in zip(sums, self._sums, strict=True):
                new[held.slices(kept)] = before[old.slices(kept)]
        self._held, self._sums = held, sums

    def _reserve_headroom(self, peak: int) -> None:
        """Refuse patches that could overflow a pixel. If the fast bound is exceeded, compute the exact one."""
        if self._peak_sum + peak > kernels.HEADROOM:
            self._peak_sum = _peak(self._sums[0])
        if self._peak_sum + peak > kernels.HEADROOM:
            raise GeometryError(
                f"a pixel cannot hold more ({self._patches} patches were added)",
                where="canvas",
                remedy="reset the canvas",
            )


def _quantise_weight(patch_weight: NDArray[np.generic]) -> NDArray[np.int32]:
    weight = patch_weight.astype(np.float64)
    if weight.ndim != 2 or not np.isfinite(weight).all() or weight.size == 0 or weight.min() < 0 or weight.max() == 0:
        raise GeometryError(
            f"patch weight of shape {weight.shape} must be two-dimensional, finite, ≥ 0 and not zero everywhere",
            where="canvas",
            remedy="export the model again, or give a weight of ones",
        )
    quantised: NDArray[np.int32] = np.rint(weight / weight.max() * kernels.WEIGHT_STEPS).astype(np.int32)
    return quantised


def _peak(value: NDArray[np.int64]) -> int:
    """The largest |accumulator| in units of TERM_SCALE, rounded up."""
    if value.size == 0:
        return 0
    return -(-max(int(value.max()), -int(value.min())) // kernels.TERM_SCALE)


def _text(xy: NDArray[np.float64]) -> str:
    return f"({xy[0]:.9g}, {xy[1]:.9g}) m"
