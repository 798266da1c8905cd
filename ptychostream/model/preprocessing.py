"""The preprocessing of a frame for the network, in one compiled pass.

The order is that of `ptychostream.model.contract.Preprocessing`: bad pixels to zero, crop, bin, rot90, flip_lr,
flip_ud, fftshift. Bad is what `ptychostream.frames.measured_pixels` calls no count, and what the contract's mask names.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache, lru_cache
from typing import Any

import numba
import numba.extending
import numpy as np
from numpy.typing import DTypeLike, NDArray

from ptychostream.errors import DropCause, FrameError, GeometryError
from ptychostream.frames.measured_pixels import highest_count, is_count
from ptychostream.model.contract import PackedArray, Preprocessing


class Preprocessor:
    """Converts raw counts to the network's input. It has no state between frames; several threads may use it.

    Parameters
    ----------
    spec
        The operations, from the model's contract.
    raw_shape
        (rows, columns) of the raw frame.
    dtype
        Integer type of the counts, signed or unsigned, 8 to 64 bits.

    Attributes
    ----------
    output_shape
        (H, W) of the result.

    Raises
    ------
    GeometryError
        The crop is not inside the frame, the bin does not divide the crop, or the mask has another shape.
    FrameError
        Cause TYPE: the type is not an integer type.

    Notes
    -----
    The kernel is compiled when the constructor returns. Sums over a bin are exact below 2⁵³.
    """

    def __init__(self, spec: Preprocessing, raw_shape: tuple[int, int], dtype: DTypeLike) -> None:
        kind = np.dtype(dtype)
        if kind.kind not in "iu":
            raise FrameError(
                DropCause.TYPE, f"counts of type {kind}", where="preprocessing", remedy="stream integer counts"
            )
        self.raw_shape = (int(raw_shape[0]), int(raw_shape[1]))
        self.dtype = kind.newbyteorder("=")
        row0, column0, height, width = _checked_crop(spec, self.raw_shape)
        self._window = np.array([row0, column0, height, width, spec.bin], np.int64)
        shape = (height // spec.bin, width // spec.bin)
        turned = shape[::-1] if spec.rot90 % 2 else shape
        self.output_shape: tuple[int, int] = turned
        # Rotations and flips act on each axis alone, so two tables give the place of a binned row and column.
        target = np.arange(turned[0] * turned[1], dtype=np.int64).reshape(turned)
        index = _undo(target, spec)
        self._row_to, self._column_to = index[:, 0].copy(), index[0] - index[0, 0]
        self._straight = bool((np.diff(self._column_to) == 1).all())
        self._limits = np.array([0, highest_good(spec, self.dtype)], self.dtype)
        self._masked = spec.bad_pixels is not None
        self._good = _good_pixels(spec, self.raw_shape)
        self._kernel, self._address = _kernel(self.dtype), _address(self.dtype)

    def apply(self, counts: NDArray[np.integer[Any]], out: NDArray[np.float32]) -> float:
        """Preprocess [rows, columns] `counts` into `out`, [H, W] float32 in C order, and give their sum.

        All of `out` is overwritten.

        Raises
        ------
        FrameError
            Cause SHAPE or TYPE: the counts have another shape or type than the preprocessor was made for.
        ValueError
            The shape of `out` is not `output_shape`.
        """
        return float(self.apply_all((counts,), out[np.newaxis])[0])

    def apply_all(self, frames: Sequence[NDArray[np.integer[Any]]], out: NDArray[np.float32]) -> NDArray[np.float64]:
        """Preprocess n frames into `out`, [n, H, W], as `apply`, in one call without the interpreter's lock.

        Returns
        -------
        [n] the sum of each result.
        """
        if out.shape != (len(frames), *self.output_shape):
            raise ValueError(f"out of {out.shape} for {len(frames)} results of {self.output_shape}")
        checked = [self._checked(counts) for counts in frames]
        sums = np.zeros(len(frames), np.float64)
        self._kernel(
            np.array([self._address(counts) for counts in checked], np.int64),
            np.array(self.raw_shape, np.int64),
            self._good,
            self._masked,
            self._limits,
            self._window,
            self._row_to,
            self._column_to,
            self._straight,
            out,
            sums,
        )
        return sums

    def _checked(self, counts: NDArray[np.integer[Any]]) -> NDArray[np.integer[Any]]:
        """The frame in this machine's byte order, aligned and C-contiguous."""
        if counts.shape != self.raw_shape:
            raise FrameError(
                DropCause.SHAPE,
                f"frame of {counts.shape}, expected {self.raw_shape}",
                where="preprocessing",
                remedy="the detector's region changed: load a model for it, or set it back",
            )
        if counts.dtype != self.dtype and counts.dtype.newbyteorder("=") != self.dtype:
            raise FrameError(
                DropCause.TYPE,
                f"counts of type {counts.dtype}, expected {self.dtype}",
                where="preprocessing",
                remedy="keep the detector's data type during a scan",
            )
        flags = counts.flags
        if counts.dtype == self.dtype and flags.c_contiguous and flags.aligned:
            return counts
        return np.require(counts, self.dtype, ("C_CONTIGUOUS", "ALIGNED"))


def good_counts(spec: Preprocessing, counts: NDArray[np.integer[Any]]) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Counts after crop and bin [h, w], not rotated, and a mask of the bins whose raw pixels are all good.

    Raises
    ------
    GeometryError
        The crop is not inside the frame, the bin does not divide the crop, or the mask has another shape.
    """
    trusted = is_count(counts, highest_good(spec, counts.dtype)) & _good_pixels(spec, counts.shape)
    return bin_counts(spec, np.where(trusted, counts, 0)), bin_counts(spec, trusted) == spec.bin**2


def bin_counts(spec: Preprocessing, frame: NDArray[Any]) -> NDArray[np.float64]:
    """A raw frame after crop and bin [h, w], not rotated. Raises the GeometryError of `good_counts`."""
    row0, column0, height, width = _checked_crop(spec, frame.shape)
    window = frame[row0 : row0 + height, column0 : column0 + width]
    side = spec.bin
    return window.reshape(height // side, side, width // side, side).sum(axis=(1, 3), dtype=np.float64)


def _checked_crop(spec: Preprocessing, raw_shape: tuple[int, int]) -> tuple[int, int, int, int]:
    rows, columns = raw_shape
    row0, column0, height, width = crop = spec.crop or (0, 0, rows, columns)
    inside = row0 >= 0 and column0 >= 0 and row0 + height <= rows and column0 + width <= columns
    if not inside or height < 1 or width < 1:
        raise GeometryError(
            f"crop {crop} (row, column, height, width) of a frame of {rows} × {columns}",
            where="preprocessing",
            remedy="the model is for another detector region: set that region, or train for this one",
        )
    if height % spec.bin or width % spec.bin:
        raise GeometryError(
            f"bin {spec.bin} does not divide {height} × {width}",
            where="preprocessing",
            remedy="crop to a multiple of the bin",
        )
    return crop


def _undo(target: NDArray[np.int64], spec: Preprocessing) -> NDArray[np.int64]:
    """`target` with rotation and flips undone: element [i, j] is the place of binned pixel (i, j)."""
    index = np.fft.ifftshift(target) if spec.fftshift else target
    index = index[::-1] if spec.flip_ud else index
    index = index[:, ::-1] if spec.flip_lr else index
    return np.rot90(index, -spec.rot90)


def highest_good(spec: Preprocessing, dtype: np.dtype[Any]) -> int:
    """The largest value of `dtype` that is a count and not a mark of a bad pixel."""
    highest = highest_count(dtype, saturation=spec.saturation, maximum_is_mark=spec.saturated_is_bad)
    return highest if spec.hot_threshold is None else min(highest, spec.hot_threshold)


def refined(spec: Preprocessing, bad: NDArray[np.bool_] | None = None, saturation: int | None = None) -> Preprocessing:
    """`spec` with further bad pixels [H, W] of the raw frame, and with the lower of two saturation levels.

    A mask of another shape than the contract's is left out: the frame then does not go with the model either.
    """
    given = [level for level in (spec.saturation, saturation) if level]
    changes: dict[str, Any] = {"saturation": min(given, default=None)}
    if bad is not None and bad.any() and spec.bad_pixels is None:
        changes["bad_pixels"] = PackedArray.pack(bad)
    elif bad is not None and spec.bad_pixels is not None and spec.bad_pixels.shape == bad.shape:
        changes["bad_pixels"] = PackedArray.pack(spec.bad_pixels.unpack().astype(np.bool_) | bad)
    return spec.model_copy(update=changes)


def bad_pixels(spec: Preprocessing) -> int:
    """Number of pixels that the mask calls bad."""
    return 0 if spec.bad_pixels is None else int(spec.bad_pixels.unpack().astype(np.bool_).sum())


def _good_pixels(spec: Preprocessing, raw_shape: tuple[int, int]) -> NDArray[np.bool_]:
    if spec.bad_pixels is None:
        return np.ones((1, 1), np.bool_)
    good = _unmasked(spec.bad_pixels)
    if good.shape != raw_shape:
        raise GeometryError(
            f"frames of {raw_shape[0]} × {raw_shape[1]}, where the model's bad pixels are of frames of "
            f"{good.shape[0]} × {good.shape[1]}",
            where="preprocessing",
            remedy="set the detector's region and binning as at the training, or load a model for this region",
        )
    return good


@lru_cache(maxsize=4)
def _unmasked(bad_pixels: PackedArray) -> NDArray[np.bool_]:
    """[H, W] True where a mask of bad pixels is not set; kept, because a mask is asked for with every frame."""
    return ~bad_pixels.unpack().astype(np.bool_)


@cache
def _kernel(dtype: np.dtype[Any]) -> Callable[..., None]:
    """`_preprocess` compiled for one count type."""
    count = numba.from_dtype(dtype)
    signature = numba.void(
        numba.int64[::1],
        numba.int64[::1],
        numba.boolean[:, ::1],
        numba.boolean,
        count[::1],
        numba.int64[::1],
        numba.int64[::1],
        numba.int64[::1],
        numba.boolean,
        numba.float32[:, :, ::1],
        numba.float64[::1],
    )
    # Sums may be taken in any order, so that they vectorise; those over a bin are exact in any order.
    jit = numba.njit(signature, nogil=True, cache=True, fastmath={"reassoc"})
    compiled: Callable[..., None] = jit(_preprocess)
    return compiled


@cache
def _address(dtype: np.dtype[Any]) -> Callable[[NDArray[Any]], int]:
    """Where a frame's counts lie in memory; numpy's own answer takes six times as long."""
    frame = numba.types.Array(numba.from_dtype(dtype), 2, "C", readonly=True)
    compiled: Callable[[NDArray[Any]], int] = numba.njit(numba.int64(frame), cache=True)(_data)
    return compiled


def _data(counts: NDArray[Any]) -> int:
    return counts.ctypes.data


@numba.extending.intrinsic
def _pointer(_context: Any, address: Any) -> Any:
    """An address as a pointer."""

    def inttoptr(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return builder.inttoptr(arguments[0], numba.core.cgutils.voidptr_t)

    return numba.types.voidptr(address), inttoptr


def _preprocess(
    frames: NDArray[np.int64],
    raw_shape: NDArray[np.int64],
    good: NDArray[np.bool_],
    masked: bool,
    limits: NDArray[Any],
    window: NDArray[np.int64],
    row_to: NDArray[np.int64],
    column_to: NDArray[np.int64],
    straight: bool,
    out: NDArray[np.float32],
    sums: NDArray[np.float64],
) -> None:
    """Frames by the addresses of their counts, so that any number of them goes in one call."""
    row0, column0, height, width, side = window[0], window[1], window[2], window[3], window[4]
    lowest, highest = limits[0], limits[1]
    columns = width // side
    # A row is cleaned and summed in its place, or in `clean` where the orientation moves its columns. The loops have
    # no branches and compare counts of one type, so that they vectorise.
    clean = np.empty(columns, np.float32)
    raw = np.empty(width, np.float64)
    total = np.empty(columns, np.float64)
    for n in range(frames.size):
        counts = numba.carray(_pointer(frames[n]), (raw_shape[0], raw_shape[1]), limits.dtype)
        flat = out[n].reshape(out[n].size)
        for i in range(height // side):
            start = row_to[i]
            line = flat[start : start + columns] if straight else clean
            if side == 1:
                row = counts[row0 + i, column0 : column0 + width]
                for c in range(width):
                    line[c] = np.float32(row[c]) if lowest <= row[c] <= highest else np.float32(0)
                if masked:
                    good_row = good[row0 + i, column0 : column0 + width]
                    for c in range(width):
                        line[c] = line[c] if good_row[c] else np.float32(0)
            else:
                total[:] = 0
                for k in range(row0 + i * side, row0 + (i + 1) * side):
                    row = counts[k, column0 : column0 + width]
                    for c in range(width):
                        raw[c] = np.float64(row[c]) if lowest <= row[c] <= highest else 0.0
                    if masked:
                        good_row = good[k, column0 : column0 + width]
                        for c in range(width):
                            raw[c] = raw[c] if good_row[c] else 0.0
                    for m in range(side):
                        every = raw[m::side]
                        for c in range(columns):
                            total[c] += every[c]
                for c in range(columns):
                    line[c] = np.float32(total[c])
            whole_line = np.float32(0)
            for c in range(columns):
                whole_line += line[c]
            sums[n] += whole_line
            if not straight:
                for c in range(columns):
                    flat[start + column_to[c]] = clean[c]
