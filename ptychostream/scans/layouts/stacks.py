"""Patterns that are stored as something other than one [N, H, W] array, read as if they were one.

Each class here has `shape`, `dtype` and reads complete frames by `[i]` and `[i:j]`: what `LazyCounts` needs.
"""

from __future__ import annotations

import bisect
import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray


class Frames:
    """[N, …, H, W] frames. Subclasses read one block.

    Attributes
    ----------
    shape, dtype
        As of an array.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, key: int | slice | tuple[Any, ...]) -> NDArray[Any]:
        if isinstance(key, tuple):
            first, rest = key[0], key[1:]
            return self[first][(slice(None), *rest) if isinstance(first, slice) else rest]
        if not isinstance(key, slice):
            return self._block(int(key), 1)[0]
        indices = range(len(self))[key]
        if indices.step == 1 and len(indices):
            return self._block(indices.start, len(indices))
        frames = [self._block(index, 1) for index in indices]
        return np.concatenate(frames) if frames else np.empty((0, *self.shape[1:]), self.dtype)

    def _block(self, start: int, count: int) -> NDArray[Any]:
        """Frames `start` to `start + count`, all of them present."""
        raise NotImplementedError


class AxisFrames(Frames):
    """Frames of an array with more than one axis before the pattern's two. The last of them is the fastest.

    Parameters
    ----------
    source
        An array of any number of axes, read by slices.
    chosen
        The index that is taken of an axis, by axis. The others are flattened.
    pattern
        The two axes of the pattern, (rows, columns).
    """

    def __init__(self, source: Any, chosen: Mapping[int, int], pattern: tuple[int, int] | None = None) -> None:
        axes = len(source.shape)
        self._pattern = pattern or (axes - 2, axes - 1)
        self._source, self._chosen = source, dict(chosen)
        self._outer = [axis for axis in range(axes) if axis not in self._pattern and axis not in chosen]
        self._sizes = tuple(source.shape[axis] for axis in self._outer)
        self.shape = (math.prod(self._sizes), source.shape[self._pattern[0]], source.shape[self._pattern[1]])
        self.dtype = source.dtype

    def _block(self, start: int, count: int) -> NDArray[Any]:
        if not self._outer:
            return self._read({})[None]
        parts, fastest = [], self._sizes[-1]
        while count > 0:
            row, first = divmod(start, fastest)
            number = min(count, fastest - first)
            slow = np.unravel_index(row, self._sizes[:-1]) if self._sizes[:-1] else ()
            key: dict[int, Any] = {axis: int(index) for axis, index in zip(self._outer[:-1], slow, strict=True)}
            key[self._outer[-1]] = slice(first, first + number)
            parts.append(self._read(key))
            start, count = start + number, count - number
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def _read(self, key: dict[int, Any]) -> NDArray[Any]:
        """A part with the axes that are left in the order (frame, row, column)."""
        axes = len(self._source.shape)
        whole = [key.get(axis, self._chosen.get(axis, slice(None))) for axis in range(axes)]
        part = np.asarray(self._source[tuple(whole)])
        left = [axis for axis in range(axes) if isinstance(whole[axis], slice)]
        order = [axis for axis in left if axis not in self._pattern] + list(self._pattern)
        return part.transpose([left.index(axis) for axis in order])


class JoinedFrames(Frames):
    """The frames of several [n, …, H, W] arrays, one after the other.

    Parameters
    ----------
    sources
        At least one, all of the same shape but for the first axis, and of the same type.
    """

    def __init__(self, sources: Sequence[Any]) -> None:
        self._sources = list(sources)
        self._starts = [0, *itertools.accumulate(len(source) for source in self._sources)]
        self.shape = (self._starts[-1], *self._sources[0].shape[1:])
        self.dtype = self._sources[0].dtype

    def _block(self, start: int, count: int) -> NDArray[Any]:
        parts = []
        while count > 0:
            which = bisect.bisect_right(self._starts, start) - 1
            first = start - self._starts[which]
            number = min(count, self._starts[which + 1] - start)
            parts.append(np.asarray(self._sources[which][first : first + number]))
            start, count = start + number, count - number
        return parts[0] if len(parts) == 1 else np.concatenate(parts)


class CalledFrames(Frames):
    """Frames that a function reads one at a time.

    Parameters
    ----------
    shape, dtype
        Of all frames.
    read
        From the index of a frame to [H, W].
    """

    def __init__(self, shape: tuple[int, int, int], dtype: Any, read: Callable[[int], NDArray[Any]]) -> None:
        self.shape, self.dtype, self._read = shape, np.dtype(dtype), read

    def _block(self, start: int, count: int) -> NDArray[Any]:
        return np.stack([self._read(index) for index in range(start, start + count)])
