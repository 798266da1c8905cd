"""Counts that stay in their file until they are read."""

from __future__ import annotations

import operator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptychostream.errors import ScanFileError

_HIGHEST = np.float32(2**32)
"""uint32's maximum and the value below it, as they come out of a conversion to float32."""


class LazyCounts:
    """[N, H, W] counts that are read from the file slice by slice.

    It has `shape`, `dtype`, `len`, `counts[i]`, `counts[i:j]`, `counts[index_array]` and `numpy.asarray(counts)` of an
    array. Counts that are stored as floats are returned as uint32; values that are NaN, infinite, negative whole
    numbers or at uint32's maximum are marks of bad pixels, and become that maximum. Reading raises ScanFileError if the
    file is damaged or a value is not a count.
    """

    def __init__(self, source: Any, where: str, *, corner: bool = False) -> None:
        self.shape: tuple[int, int, int] = tuple(source.shape)
        self.ndim = 3
        self.dtype = np.dtype(np.uint32) if source.dtype.kind == "f" else source.dtype.newbyteorder("=")
        self._source = source
        self._where = where
        self._corner = corner

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, key: Any) -> NDArray[np.integer]:
        first, rest = (key[0], key[1:]) if isinstance(key, tuple) else (key, ())
        frames = self._frames(first)
        return frames[rest] if frames.ndim == 2 or not rest else frames[(slice(None), *rest)]

    def below_zero(self, index: int) -> NDArray[np.bool_]:
        """[H, W] where the values of a frame are stored as negative ones, of which `counts[index]` makes marks."""
        if self._source.dtype.kind == "u":
            return np.zeros(self.shape[1:], np.bool_)
        frame = np.asarray(self._source[index]) < 0
        return np.fft.fftshift(frame) if self._corner else frame

    def check_first(self) -> None:
        """Read the first frame. Raises ScanFileError if a value is not a count, or if every value is a mark."""
        if (self[0] == np.iinfo(np.uint32).max).all():
            raise self._no_count("frame 0", np.asarray(self._source[0]).flat[0])

    def _no_count(self, name: str, value: Any) -> ScanFileError:
        return ScanFileError(
            f"{name}: {value} is not a count",
            where=self._where,
            remedy="give raw integer counts, neither normalised nor background-subtracted",
        )

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        if copy is False:
            raise ValueError("counts are read from a file, which always copies")
        return np.asarray(self[:], dtype=dtype)

    def _frames(self, key: Any) -> NDArray[np.integer]:
        """Complete frames: [H, W] for an integer, else [n, H, W]."""
        if isinstance(key, slice):
            indices = range(len(self))[key]
            if indices.step < 0:
                return self._frames(np.asarray(indices, dtype=np.intp))
            return self._read(key, f"frames {indices.start} to {indices.stop - 1}")
        if isinstance(key, (list, np.ndarray)):
            return self._gather(np.asarray(key))
        index = operator.index(key)
        if not -len(self) <= index < len(self):
            raise IndexError(f"frame {index} of {len(self)}")
        return self._read(index % len(self), f"frame {index % len(self)}")

    def _gather(self, key: NDArray[Any]) -> NDArray[np.integer]:
        """Frames by index, in any order and with repetitions. h5py itself needs increasing indices."""
        indices = np.flatnonzero(key) if key.dtype == np.bool_ else key.astype(np.intp)
        frames = np.empty((len(indices), *self.shape[1:]), self.dtype)
        for place, index in enumerate(indices):
            frames[place] = self._frames(index)
        return frames

    def _read(self, key: Any, name: str) -> NDArray[np.integer]:
        try:
            frames: NDArray[Any] = np.asarray(self._source[key])
        except (OSError, RuntimeError, ValueError) as error:
            raise ScanFileError(
                f"{name} cannot be read: {error}",
                where=self._where,
                remedy="the file is damaged or cut short there; copy it again from its source",
            ) from error
        if frames.dtype.kind == "f":
            frames = self._whole(frames, name)
        if self._corner:
            frames = np.fft.fftshift(frames, axes=(-2, -1))
        return np.asarray(frames, dtype=self.dtype)

    def _whole(self, frames: NDArray[np.floating], name: str) -> NDArray[np.uint32]:
        with np.errstate(invalid="ignore"):
            marks = ~np.isfinite(frames) | ((frames < 0) & (frames == np.rint(frames))) | (frames == _HIGHEST)
            whole = np.where(marks, 0, frames).astype(np.uint32)
        whole[marks] = np.iinfo(np.uint32).max
        wrong = ~marks & (whole != frames)
        if wrong.any():
            raise self._no_count(name, frames[wrong].flat[0])
        return whole
