"""Arrays in files whose rows are read in any order, without holding the files in memory."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptychostream.errors import TrainingError


@dataclass(frozen=True)
class Extent:
    """`rows` rows of `shape` and `dtype`, one after the other in the file `path` from byte `offset` on."""

    path: Path
    offset: int
    rows: int
    shape: tuple[int, ...]
    dtype: np.dtype[Any]


class StoredArray:
    """Several extents as one array [N, ...] of one type; indexing reads and returns a new array.

    Rows are read with `pread`, which needs no lock. Only the result is kept in memory, besides the system's page cache.
    Threads may read at the same time.

    Parameters
    ----------
    extents
        Extents with the same row shape and the same kind of number.
    dtype
        Type of the result; other types in the files are converted.
    """

    def __init__(self, extents: Sequence[Extent], dtype: np.dtype[Any]) -> None:
        assert len({extent.shape for extent in extents}) == 1
        self._extents = list(extents)
        self._files = [os.open(extent.path, os.O_RDONLY) for extent in extents]
        self._starts = np.concatenate([[0], np.cumsum([extent.rows for extent in extents])])
        self.dtype = dtype
        self.shape: tuple[int, ...] = (int(self._starts[-1]), *extents[0].shape)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: NDArray[np.integer] | slice | int) -> NDArray[Any]:
        """A row, or the rows of a slice or of an array of indices, in its order."""
        if isinstance(rows, int | np.integer):
            return self._gather(np.asarray([rows]))[0]
        return self._gather(np.arange(len(self))[rows])

    def close(self) -> None:
        """Close the files; reading is no longer possible."""
        while self._files:
            os.close(self._files.pop())

    def _gather(self, rows: NDArray[np.integer]) -> NDArray[Any]:
        out = np.empty((len(rows), *self.shape[1:]), self.dtype)
        places = np.searchsorted(self._starts, rows, side="right") - 1
        for i in np.argsort(rows, kind="stable"):  # in the order of the files, so that neighbours are read together
            extent = self._extents[places[i]]
            raw = np.empty(extent.shape, extent.dtype)
            at = extent.offset + int(rows[i] - self._starts[places[i]]) * raw.nbytes
            if os.preadv(self._files[places[i]], [raw.data.cast("B")], at) != raw.nbytes:
                remedy = "remove that file from the corpus; its scan is then left out"
                raise TrainingError("ends before its data do", where=str(extent.path), remedy=remedy)
            out[i] = raw
        return out
