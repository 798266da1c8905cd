"""Compressed frames as HDF5 chunks. A compressed frame is stored as it was sent if the formats agree.

- bslz4 in a bslz4 file: the filter's header, then the payload.
- lz4hdf5 in an lz4 file: the payload.
- lz4 in an lz4 file: the filter's header, then the block; a payload that has the header is stored as it is.
- blosc in a blosc file: the payload.
- zlib in a zlib file: the payload.

All other frames are decompressed and compressed again.
"""

from __future__ import annotations

import math
import struct
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptychostream.frames import bitshuffle
from ptychostream.frames.codecs import bslz4_header, compress, decompress, is_lz4_chunk

_HEADER = struct.Struct(">QI")  # bytes of the whole array when uncompressed, bytes per block
_LENGTH = struct.Struct(">I")
_STREAM_CODECS = {"none": "", "lz4": "lz4hdf5", "bslz4": "bslz4", "blosc": "blosc", "zlib": "zlib"}
_FILE_CODECS = {"lz4": "lz4", "lz4hdf5": "lz4", "bslz4": "bslz4", "blosc": "blosc", "zlib": "zlib"}


def file_codec(stream_codec: str) -> str:
    """The codec of `scan_layout` that stores a stream's frames as they were sent. bslz4 if there is none."""
    return _FILE_CODECS.get(stream_codec, "bslz4")


def as_chunk(
    payload: NDArray[Any], stream_codec: str, shape: tuple[int, int], dtype: np.dtype[Any], codec: str, check: bool
) -> bytes:
    """The HDF5 chunk of one frame in a file of `codec`.

    Parameters
    ----------
    payload, stream_codec, shape, dtype
        The frame as it was sent (see `ptychostream.frames.codecs`).
    check
        Whether to decompress a frame that is stored as it was sent, so that damage is found now and not by the reader
        of the file.

    Raises
    ------
    FrameError
        The codec is unknown, or the payload cannot be decompressed.
    """
    kept = _kept(payload, stream_codec, shape, dtype) if _FILE_CODECS.get(stream_codec) == codec else None
    if kept is not None:
        if check:
            decompress(payload, stream_codec, shape, dtype)
        return kept
    counts = decompress(payload, stream_codec, shape, dtype) if stream_codec else payload.reshape(shape)
    data = compress(counts, _STREAM_CODECS[codec])
    return _bslz4_chunk(data, counts.nbytes, counts.itemsize) if codec == "bslz4" else data


def _kept(payload: NDArray[Any], codec: str, shape: tuple[int, int], dtype: np.dtype[Any]) -> bytes | None:
    """The payload as a chunk, or None if the frame must be compressed again."""
    data = payload.tobytes()
    size = math.prod(shape) * dtype.itemsize
    if codec == "bslz4":
        if math.prod(shape) < bitshuffle.MULTIPLE:
            return None
        start, block = bslz4_header(memoryview(data), math.prod(shape), dtype.itemsize)
        return _bslz4_chunk(data[start:], size, dtype.itemsize, block)
    if codec == "lz4":
        if is_lz4_chunk(memoryview(data)):
            return data
        # to the filter a block as long as the array means "not compressed"
        return None if len(data) == size else _HEADER.pack(size, size) + _LENGTH.pack(len(data)) + data
    return data


def _bslz4_chunk(blocks: bytes, size: int, itemsize: int, block: int | None = None) -> bytes:
    return _HEADER.pack(size, (block or bitshuffle.default_block(itemsize)) * itemsize) + blocks
