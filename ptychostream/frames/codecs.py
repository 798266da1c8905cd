"""Encode and decode the codecs that areaDetector sends.

A payload is checked before native code reads it, and its result is never larger than the size that the frame
announces. A truncated or malicious payload therefore raises an error and does nothing else.

- "": the bytes of the array
- lz4: one LZ4 block, no header; a chunk of the HDF5 LZ4 filter is accepted, which some senders label so
- bslz4: bitshuffle-LZ4 blocks without a header, as NDCodec sends them; the HDF5 filter's 12-byte header is accepted
- lz4hdf5: a chunk of the HDF5 LZ4 filter
- blosc: one Blosc 1 frame, of any of its compressors
- zlib: one zlib stream
- jpeg: an 8-bit grayscale image; lossy
"""

from __future__ import annotations

import io
import math
import struct
import zlib
from collections.abc import Callable
from typing import Any

import lz4.block
import numpy as np
from numpy.typing import DTypeLike, NDArray
from PIL import Image

from ptychostream.errors import DropCause, FrameError
from ptychostream.frames import bitshuffle
from ptychostream.frames.blosc_frame import decode_blosc, encode_blosc
from ptychostream.frames.payload import Bytes, as_array, nothing_left, refuse, size_of, take

LOSSY = frozenset({"jpeg"})
"""The codecs that do not give back the counts that were encoded."""
MAX_FRAME_BYTES = 1 << 28
"""A larger frame is refused before memory is allocated for it (256 MiB)."""

_HDF5_HEADER = struct.Struct(">QI")  # bytes of the whole array when uncompressed, bytes per block
_LENGTH = struct.Struct(">I")
_LZ4HDF5_BLOCK = 1 << 30
_LZ4_RATIO = 255
"""The largest compression ratio of LZ4: one byte of a length stands for up to 255 bytes."""
_JPEG_QUALITY = 95

_Decoder = Callable[[memoryview, tuple[int, ...], "np.dtype[Any]"], NDArray[Any]]
_Encoder = Callable[[NDArray[Any]], bytes]


def compress(counts: NDArray[Any], codec: str) -> bytes:
    """Encode an array as NDCodec does.

    Raises
    ------
    FrameError
        The codec is unknown or cannot hold the array (`DropCause.CODEC`).
    """
    array = np.ascontiguousarray(counts)
    encode: _Encoder = _find(ENCODERS, codec)
    return encode(array)


def decompress(
    payload: Bytes | NDArray[np.uint8], codec: str, shape: tuple[int, ...], dtype: DTypeLike
) -> NDArray[Any]:
    """Decode a payload into an array of `shape` and `dtype`. The array may be read-only.

    Raises
    ------
    FrameError
        The codec is unknown, or the payload is truncated, in another format or of the wrong size
        (`DropCause.CODEC`).
    """
    kind = np.dtype(dtype)
    decode: _Decoder = _find(DECODERS, codec)
    if math.prod(shape) * kind.itemsize > MAX_FRAME_BYTES:
        refuse(codec, f"a frame of {shape} {kind} is larger than {MAX_FRAME_BYTES >> 20} MiB")
    data = payload.data if isinstance(payload, np.ndarray) else memoryview(payload)
    return decode(data.cast("B"), shape, kind)


def _find(table: dict[str, Any], codec: str) -> Any:
    try:
        return table[codec]
    except KeyError:
        remedy = f"set the detector's codec to one of {', '.join(name or 'none' for name in table)}"
        raise FrameError(DropCause.CODEC, f"unknown codec {codec!r}", where="frame", remedy=remedy) from None


def _check_ratio(codec: str, stored: int, size: int) -> None:
    """Refuse a payload that is too short for the size it announces, before memory is allocated."""
    if size > _LZ4_RATIO * stored:
        refuse(codec, f"{stored} bytes cannot hold {size}")


def _lz4_block(codec: str, block: memoryview, size: int) -> bytes:
    _check_ratio(codec, len(block), size)
    try:
        data: bytes = lz4.block.decompress(block, uncompressed_size=size)
    except lz4.block.LZ4BlockError as error:
        refuse(codec, str(error))
    if len(data) != size:
        refuse(codec, f"a block of {len(data)} bytes, expected {size}")
    return data


def _decode_raw(payload: memoryview, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
    return as_array("", payload, shape, dtype)


def _decode_lz4(payload: memoryview, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
    if is_lz4_chunk(payload):
        return _decode_lz4hdf5(payload, shape, dtype)
    return as_array("lz4", _lz4_block("lz4", payload, size_of(shape, dtype)), shape, dtype)


def is_lz4_chunk(payload: memoryview) -> bool:
    """Whether a payload is a chunk of the HDF5 LZ4 filter, and no bare block.

    `pvapy-ad-sim-server -hcm` sends chunks of files as "lz4". A chunk begins with the upper half of the array's size,
    which is zero. A bare block never begins with four zero bytes: it would refer to data before its beginning.
    """
    return len(payload) >= _HDF5_HEADER.size + _LENGTH.size and not any(payload[:4])


def _encode_lz4(array: NDArray[Any]) -> bytes:
    return bytes(lz4.block.compress(array.tobytes(), store_size=False))


def _decode_bslz4(payload: memoryview, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
    at, block = bslz4_header(payload, math.prod(shape), dtype.itemsize)
    _check_ratio("bslz4", len(payload), size_of(shape, dtype))
    out = np.empty(size_of(shape, dtype), np.uint8)
    done = 0
    for elements in bitshuffle.block_lengths(math.prod(shape), block):
        size = elements * dtype.itemsize
        (length,) = _LENGTH.unpack(take("bslz4", payload, at, _LENGTH.size))
        at += _LENGTH.size
        data = _lz4_block("bslz4", take("bslz4", payload, at, length), size)
        at += length
        bitshuffle.unshuffle(np.frombuffer(data, np.uint8), dtype.itemsize, out[done : done + size])
        done += size
    left = len(out) - done
    out[done:] = np.frombuffer(take("bslz4", payload, at, left), np.uint8)
    nothing_left("bslz4", len(payload) - at - left)
    return out.view(dtype).reshape(shape)


def bslz4_header(payload: memoryview, elements: int, itemsize: int) -> tuple[int, int]:
    """The offset of the first block in bytes, and the number of elements in each block.

    A payload without the HDF5 header begins with the length of a block, which is never zero. A payload with the
    header begins with the upper half of the array's size, which is always zero. If there are too few elements for
    a block, the payload is the elements themselves.
    """
    size = elements * itemsize
    bare = any(payload[:4]) if elements >= bitshuffle.MULTIPLE else len(payload) == size
    if bare or len(payload) < _HDF5_HEADER.size:
        return 0, bitshuffle.default_block(itemsize)
    total, block_bytes = _HDF5_HEADER.unpack_from(payload)
    if total != size:
        refuse("bslz4", f"its header says {total} bytes, the frame {size}")
    if block_bytes == 0:
        return _HDF5_HEADER.size, bitshuffle.default_block(itemsize)
    if block_bytes % (itemsize * bitshuffle.MULTIPLE):
        refuse("bslz4", f"its header says blocks of {block_bytes} bytes")
    return _HDF5_HEADER.size, block_bytes // itemsize


def _encode_bslz4(array: NDArray[Any]) -> bytes:
    data, itemsize = np.frombuffer(array.tobytes(), np.uint8), array.itemsize
    parts: list[bytes] = []
    done = 0
    for elements in bitshuffle.block_lengths(array.size, bitshuffle.default_block(itemsize)):
        size = elements * itemsize
        shuffled = bitshuffle.shuffle(data[done : done + size], itemsize)
        block = lz4.block.compress(shuffled, store_size=False)
        parts += [_LENGTH.pack(len(block)), block]
        done += size
    return b"".join([*parts, data[done:].tobytes()])


def _decode_lz4hdf5(payload: memoryview, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
    size = size_of(shape, dtype)
    total, block = _HDF5_HEADER.unpack(take("lz4hdf5", payload, 0, _HDF5_HEADER.size))
    if total != size or block == 0:
        refuse("lz4hdf5", f"its header says {total} bytes in blocks of {block}, the frame {size}")
    at = _HDF5_HEADER.size
    parts: list[Bytes] = []
    for start in range(0, size, block):
        wanted = min(block, size - start)
        (length,) = _LENGTH.unpack(take("lz4hdf5", payload, at, _LENGTH.size))
        at += _LENGTH.size
        data = take("lz4hdf5", payload, at, length)
        at += length
        # If LZ4 cannot shrink a block, the filter stores the block unchanged.
        parts.append(data if length == wanted else _lz4_block("lz4hdf5", data, wanted))
    nothing_left("lz4hdf5", len(payload) - at)
    return as_array("lz4hdf5", parts[0] if len(parts) == 1 else b"".join(parts), shape, dtype)


def _encode_lz4hdf5(array: NDArray[Any]) -> bytes:
    data = array.tobytes()
    block = min(len(data), _LZ4HDF5_BLOCK)
    parts = [_HDF5_HEADER.pack(len(data), block)]
    for start in range(0, len(data), block):
        plain = data[start : start + block]
        small = lz4.block.compress(plain, store_size=False)
        stored = small if len(small) < len(plain) else plain
        parts += [_LENGTH.pack(len(stored)), stored]
    return b"".join(parts)


def _decode_zlib(payload: memoryview, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
    stream = zlib.decompressobj()
    try:
        data = stream.decompress(payload, size_of(shape, dtype) + 1)
    except zlib.error as error:
        refuse("zlib", str(error))
    if not stream.eof:
        refuse("zlib", f"truncated, or more than the {size_of(shape, dtype)} bytes of {shape} {dtype}")
    nothing_left("zlib", len(stream.unused_data))
    return as_array("zlib", data, shape, dtype)


def _encode_zlib(array: NDArray[Any]) -> bytes:
    return zlib.compress(array.tobytes(), 1)


def _decode_jpeg(payload: memoryview, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
    if dtype.itemsize != 1 or len(shape) != 2:
        refuse("jpeg", f"cannot hold {shape} {dtype}")
    try:
        with Image.open(io.BytesIO(payload), formats=["JPEG"]) as image:
            if image.mode != "L" or image.size != shape[::-1]:
                refuse("jpeg", f"a {image.mode} image of {image.size[::-1]}, where the frame is {shape}")
            grey = np.array(image, np.uint8)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        refuse("jpeg", str(error))
    return grey.view(dtype)


def _encode_jpeg(array: NDArray[Any]) -> bytes:
    if array.itemsize != 1 or array.ndim != 2:
        refuse("jpeg", f"cannot hold {array.shape} {array.dtype}")
    stream = io.BytesIO()
    Image.fromarray(array.view(np.uint8)).save(stream, "JPEG", quality=_JPEG_QUALITY)
    return stream.getvalue()


DECODERS: dict[str, _Decoder] = {
    "": _decode_raw,
    "lz4": _decode_lz4,
    "bslz4": _decode_bslz4,
    "lz4hdf5": _decode_lz4hdf5,
    "blosc": decode_blosc,
    "zlib": _decode_zlib,
    "jpeg": _decode_jpeg,
}
ENCODERS: dict[str, _Encoder] = {
    "": lambda array: array.tobytes(),
    "lz4": _encode_lz4,
    "bslz4": _encode_bslz4,
    "lz4hdf5": _encode_lz4hdf5,
    "blosc": encode_blosc,
    "zlib": _encode_zlib,
    "jpeg": _encode_jpeg,
}
CODECS = tuple(DECODERS)
LOSSY = frozenset({"jpeg"})
