"""Encode and decode the codecs that areaDetector sends.

A payload is checked before native code reads it, and its result is never larger than the size that the frame
announces. A truncated or malicious payload therefore raises an error and does nothing else.

- "": the bytes of the array
- lz4: one LZ4 block, no header
- bslz4: bitshuffle-LZ4 blocks without a header, as NDCodec sends them; the HDF5 filter's 12-byte header is accepted
- lz4hdf5: a chunk of the HDF5 LZ4 filter
- blosc: one Blosc 1 frame
- zlib: one zlib stream
- jpeg: an 8-bit grayscale image; lossy
"""

from __future__ import annotations

import io
import math
import struct
import zlib
from collections.abc import Callable
from typing import Any, NoReturn

import blosc
import lz4.block
import numpy as np
from numpy.typing import DTypeLike, NDArray
from PIL import Image

from ptychostream.errors import DropCause, FrameError
from ptychostream.frames import bitshuffle

MAX_FRAME_BYTES = 1 << 28
"""A larger frame is refused before memory is allocated for it (256 MiB)."""

_HDF5_HEADER = struct.Struct(">QI")  # bytes of the whole array when uncompressed, bytes per block
_LENGTH = struct.Struct(">I")
_BLOSC_HEADER = struct.Struct("<4B3I")  # versions, flags, type size; bytes, block bytes, compressed bytes
_BLOSC_VERSIONS = (1, 2)
_LZ4HDF5_BLOCK = 1 << 30
_LZ4_RATIO = 255
"""The largest compression ratio of LZ4: one byte of a length stands for up to 255 bytes."""
_JPEG_QUALITY = 95

Bytes = bytes | bytearray | memoryview
_Decoder = Callable[[memoryview, tuple[int, ...], "np.dtype[Any]"], NDArray[Any]]
_Encoder = Callable[[NDArray[Any]], bytes]

# A frame has tens of kilobytes. Waking Blosc's threads for it costs more than they save.
blosc.set_nthreads(1)
blosc.set_releasegil(True)


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
        _refuse(codec, f"a frame of {shape} {kind} is larger than {MAX_FRAME_BYTES >> 20} MiB")
    data = payload.data if isinstance(payload, np.ndarray) else memoryview(payload)
    return decode(data.cast("B"), shape, kind)


def _find(table: dict[str, Any], codec: str) -> Any:
    try:
        return table[codec]
    except KeyError:
        remedy = f"set the detector's codec to one of {', '.join(name or 'none' for name in table)}"
        raise FrameError(DropCause.CODEC, f"unknown codec {codec!r}", where="frame", remedy=remedy) from None


def _refuse(codec: str, what: str) -> NoReturn:
    raise FrameError(
        DropCause.CODEC,
        f"{codec or 'raw'} payload: {what}",
        where="frame",
        remedy="look at the codec settings of the detector and at what lies between it and here",
    )


def _size(shape: tuple[int, ...], dtype: np.dtype[Any]) -> int:
    return math.prod(shape) * dtype.itemsize


def _as_array(codec: str, data: Bytes, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
    if len(data) != _size(shape, dtype):
        _refuse(codec, f"{len(data)} bytes, where {shape} {dtype} takes {_size(shape, dtype)}")
    return np.frombuffer(data, dtype).reshape(shape)


def _check_ratio(codec: str, stored: int, size: int) -> None:
    """Refuse a payload that is too short for the size it announces, before memory is allocated."""
    if size > _LZ4_RATIO * stored:
        _refuse(codec, f"{stored} bytes cannot hold {size}")


def _lz4_block(codec: str, block: memoryview, size: int) -> bytes:
    _check_ratio(codec, len(block), size)
    try:
        data: bytes = lz4.block.decompress(block, uncompressed_size=size)
    except lz4.block.LZ4BlockError as error:
        _refuse(codec, str(error))
    if len(data) != size:
        _refuse(codec, f"a block of {len(data)} bytes, expected {size}")
    return data


def _decode_raw(payload: memoryview, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
    return _as_array("", payload, shape, dtype)


def _decode_lz4(payload: memoryview, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
    return _as_array("lz4", _lz4_block("lz4", payload, _size(shape, dtype)), shape, dtype)


def _encode_lz4(array: NDArray[Any]) -> bytes:
    return bytes(lz4.block.compress(array.tobytes(), store_size=False))


def _take(codec: str, payload: memoryview, at: int, size: int) -> memoryview:
    if at + size > len(payload):
        _refuse(codec, f"truncated: {at + size} bytes needed, {len(payload)} there")
    return payload[at : at + size]


def _nothing_left(codec: str, size: int) -> None:
    if size:
        _refuse(codec, f"{size} bytes too many")


def _decode_bslz4(payload: memoryview, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
    at, block = bslz4_header(payload, math.prod(shape), dtype.itemsize)
    _check_ratio("bslz4", len(payload), _size(shape, dtype))
    out = np.empty(_size(shape, dtype), np.uint8)
    done = 0
    for elements in bitshuffle.block_lengths(math.prod(shape), block):
        size = elements * dtype.itemsize
        (length,) = _LENGTH.unpack(_take("bslz4", payload, at, _LENGTH.size))
        at += _LENGTH.size
        data = _lz4_block("bslz4", _take("bslz4", payload, at, length), size)
        at += length
        bitshuffle.unshuffle(np.frombuffer(data, np.uint8), dtype.itemsize, out[done : done + size])
        done += size
    left = len(out) - done
    out[done:] = np.frombuffer(_take("bslz4", payload, at, left), np.uint8)
    _nothing_left("bslz4", len(payload) - at - left)
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
        _refuse("bslz4", f"its header says {total} bytes, the frame {size}")
    if block_bytes == 0:
        return _HDF5_HEADER.size, bitshuffle.default_block(itemsize)
    if block_bytes % (itemsize * bitshuffle.MULTIPLE):
        _refuse("bslz4", f"its header says blocks of {block_bytes} bytes")
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
    size = _size(shape, dtype)
    total, block = _HDF5_HEADER.unpack(_take("lz4hdf5", payload, 0, _HDF5_HEADER.size))
    if total != size or block == 0:
        _refuse("lz4hdf5", f"its header says {total} bytes in blocks of {block}, the frame {size}")
    at = _HDF5_HEADER.size
    parts: list[Bytes] = []
    for start in range(0, size, block):
        wanted = min(block, size - start)
        (length,) = _LENGTH.unpack(_take("lz4hdf5", payload, at, _LENGTH.size))
        at += _LENGTH.size
        data = _take("lz4hdf5", payload, at, length)
        at += length
        # If LZ4 cannot shrink a block, the filter stores the block unchanged.
        parts.append(data if length == wanted else _lz4_block("lz4hdf5", data, wanted))
    _nothing_left("lz4hdf5", len(payload) - at)
    return _as_array("lz4hdf5", parts[0] if len(parts) == 1 else b"".join(parts), shape, dtype)


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


def _decode_blosc(payload: memoryview, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
    version, _, _, _, total, block, stored = _BLOSC_HEADER.unpack(_take("blosc", payload, 0, _BLOSC_HEADER.size))
    if version not in _BLOSC_VERSIONS:
        _refuse("blosc", f"format version {version}")
    if (total, stored) != (_size(shape, dtype), len(payload)) or not 0 < block <= max(total, 1):
        _refuse(
            "blosc",
            f"its header says {stored} bytes for {total} in blocks of {block}; "
            f"there are {len(payload)} for {_size(shape, dtype)}",
        )
    try:
        data = blosc.decompress(payload)
    except (blosc.blosc_extension.error, ValueError) as error:
        _refuse("blosc", str(error))
    return _as_array("blosc", data, shape, dtype)


def _encode_blosc(array: NDArray[Any]) -> bytes:
    return bytes(blosc.compress(array.tobytes(), typesize=array.itemsize, clevel=5, cname="lz4"))


def _decode_zlib(payload: memoryview, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
    stream = zlib.decompressobj()
    try:
        data = stream.decompress(payload, _size(shape, dtype) + 1)
    except zlib.error as error:
        _refuse("zlib", str(error))
    if not stream.eof:
        _refuse("zlib", f"truncated, or more than the {_size(shape, dtype)} bytes of {shape} {dtype}")
    _nothing_left("zlib", len(stream.unused_data))
    return _as_array("zlib", data, shape, dtype)


def _encode_zlib(array: NDArray[Any]) -> bytes:
    return zlib.compress(array.tobytes(), 1)


def _decode_jpeg(payload: memoryview, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
    if dtype.itemsize != 1 or len(shape) != 2:
        _refuse("jpeg", f"cannot hold {shape} {dtype}")
    try:
        with Image.open(io.BytesIO(payload), formats=["JPEG"]) as image:
            if image.mode != "L" or image.size != shape[::-1]:
                _refuse("jpeg", f"a {image.mode} image of {image.size[::-1]}, where the frame is {shape}")
            grey = np.array(image, np.uint8)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        _refuse("jpeg", str(error))
    return grey.view(dtype)


def _encode_jpeg(array: NDArray[Any]) -> bytes:
    if array.itemsize != 1 or array.ndim != 2:
        _refuse("jpeg", f"cannot hold {array.shape} {array.dtype}")
    stream = io.BytesIO()
    Image.fromarray(array.view(np.uint8)).save(stream, "JPEG", quality=_JPEG_QUALITY)
    return stream.getvalue()


DECODERS: dict[str, _Decoder] = {
    "": _decode_raw,
    "lz4": _decode_lz4,
    "bslz4": _decode_bslz4,
    "lz4hdf5": _decode_lz4hdf5,
    "blosc": _decode_blosc,
    "zlib": _decode_zlib,
    "jpeg": _decode_jpeg,
}
ENCODERS: dict[str, _Encoder] = {
    "": lambda array: array.tobytes(),
    "lz4": _encode_lz4,
    "bslz4": _encode_bslz4,
    "lz4hdf5": _encode_lz4hdf5,
    "blosc": _encode_blosc,
    "zlib": _encode_zlib,
    "jpeg": _encode_jpeg,
}
CODECS = tuple(DECODERS)
LOSSY = frozenset({"jpeg"})
