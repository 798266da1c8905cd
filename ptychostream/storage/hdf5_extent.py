"""Limits the size of what is read from an HDF5 dataset, because a short file can announce an array of any size."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from ptychostream.errors import ScanFileError

MAX_PART_BYTES = 1 << 28
"""The largest frame, or other part that is read at once. A larger one is a mistake or an attack on the memory."""
MAX_CHUNKS = 1 << 20
_MAX_CHUNK_BYTES = 1 << 30
_BLOCK = 256  # texts read at once, each of which may be as long as the file


def check_extent(dataset: h5py.Dataset, shape: tuple[int, ...], chunks: int, where: str) -> None:
    """Raise ScanFileError if a part `shape` of `dataset`, along its last axes, is larger than any real one."""
    sides = (dataset.chunks or ())[-len(shape) :] if shape else ()
    pieces = math.prod(-(-size // side) for size, side in zip(shape, sides, strict=False))
    chunk_bytes = math.prod(dataset.chunks or ()) * dataset.dtype.itemsize
    if math.prod(shape) * dataset.dtype.itemsize > MAX_PART_BYTES or pieces > chunks or chunk_bytes > _MAX_CHUNK_BYTES:
        raise ScanFileError(
            f"{dataset.name} announces {shape} {dataset.dtype} in {pieces} pieces, more than any real file has",
            where=where,
            remedy="the file is damaged; copy it again, or repack it with one frame a chunk",
        )


def object_blocks(dataset: h5py.Dataset, where: str) -> Iterator[NDArray[Any]]:
    """Yield a dataset of values of variable length, such as texts, some rows at a time. A scalar is one block.

    Raises ScanFileError if the dataset or its unpacked values are larger than any real ones.
    """
    check_extent(dataset, dataset.shape, MAX_CHUNKS, where)
    if dataset.ndim == 0:
        yield np.asarray(dataset[()])
        return
    step, held = max(1, _BLOCK // max(1, math.prod(dataset.shape[1:]))), 0
    for start in range(0, len(dataset), step):
        block = np.asarray(dataset[start : start + step])
        held += sum(map(_length, block.flat))
        if held > MAX_PART_BYTES:
            raise ScanFileError(
                f"{dataset.name} unfolds to more than {MAX_PART_BYTES >> 20} MiB",
                where=where,
                remedy="the file is damaged; copy it again",
            )
        yield block


def _length(value: Any) -> int:
    """The number of bytes or characters of a value of variable length."""
    if isinstance(value, np.void):  # a record
        return sum(map(_length, value.item())) if value.dtype.names else value.nbytes
    return value.nbytes if isinstance(value, np.ndarray) else len(value) if isinstance(value, (bytes, str)) else 0
