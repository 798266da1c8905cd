"""Compressed frames as HDF5 chunks: what a detector has compressed is kept as it came where the formats agree.

- A stream of bslz4 is kept in a file of bslz4: the payload behind the filter's header.
- lz4hdf5 in lz4: the payload.
- lz4 in lz4: the block behind the filter's header.
- blosc in blosc: the payload.
- zlib in zlib: the payload.

Anything else is decompressed and compressed anew.
"""

from __future__ import annotations

import math
import struct
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptychostream.frames import bitshuffle
from ptychostream.frames.codecs import bslz4_header, compress, decompress

_HEADER = struct.Struct(">QI")  # uncompressed bytes of the whole, bytes per block
_LENGTH = struct.Struct(">I")
_STREAM_CODECS = {"none": "", "lz4": "lz4hdf5", "bslz4": "bslz4", "blosc": "blosc", "zlib": "zlib"}
_FILE_CODECS = {"lz4": "lz4", "lz4hdf5": "lz4", "bslz4": "bslz4", "blosc": "blosc", "zlib": "zlib"}


def file_codec(stream_codec: str) -> str:
    """The codec of `scan_layout` that keeps a stream's frames as they come; bslz4 where none does."""
    return _FILE_CODECS.get(stream_codec, "bslz4")


def as_chunk(
    payload: NDArray[Any], stream_codec: str, shape: tuple[int, int], dtype: np.dtype[Any], codec: str, check: bool
) -> bytes:
    """The HDF5 chunk of one frame in a file of `codec`.

    Parameters
    ----------
    payload, stream_codec, shape, dtype
        The frame as it was sent: see `ptychostream.frames.codecs`.
    check
        Decompress what is passed on as it came, so that a damaged frame is known now and not to the file's reader.

    Raises
    ------
    FrameError
        Unknown codec, or a payload that does not decompress.
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
    """The payload as a chunk; None where it has to be made anew."""
    data = payload.tobytes()
    size = math.prod(shape) * dtype.itemsize
    if codec == "bslz4":
        if math.prod(shape) < bitshuffle.MULTIPLE:
            return None
        start, block = bslz4_header(memoryview(data), math.prod(shape), dtype.itemsize)
        return _bslz4_chunk(data[start:], size, dtype.itemsize, block)
    if codec == "lz4":
        # a block of the whole's length means "not compressed" to the filter
        return None if len(data) == size else _HEADER.pack(size, size) + _LENGTH.pack(len(data)) + data
    return data


def _bslz4_chunk(blocks: bytes, size: int, itemsize: int, block: int | None = None) -> bytes:
    return _HEADER.pack(size, (block or bitshuffle.default_block(itemsize)) * itemsize) + blocks
