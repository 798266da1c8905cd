"""Frames of Blosc 1, of any of its compressors.

The wheel of `blosc` is built without Snappy, which areaDetector's NDPluginCodec offers. The library of hdf5plugin's
filter has it, on x86-64 and aarch64: it decodes what needs Snappy.
"""

from __future__ import annotations

import ctypes
import struct
from functools import cache
from pathlib import Path
from typing import Any

import blosc
import hdf5plugin
import numpy as np
from numpy.typing import NDArray

from ptychostream.frames.payload import as_array, refuse, size_of, take

_HEADER = struct.Struct("<4B3I")  # versions, flags, type size; bytes, block bytes, compressed bytes
_VERSIONS = (1, 2)
_NOT_COMPRESSED = 0x02
_COMPRESSORS = ("blosclz", "lz4", "snappy", "zlib", "zstd")
"""By the number in the upper three bits of the flags."""

# A frame has tens of kilobytes. Waking Blosc's threads for it costs more than they save.
blosc.set_nthreads(1)
blosc.set_releasegil(True)


def decode_blosc(payload: memoryview, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
    """The array of a Blosc frame. Raises FrameError, which names the compressor."""
    version, _, flags, _, total, block, stored = _HEADER.unpack(take("blosc", payload, 0, _HEADER.size))
    if version not in _VERSIONS:
        refuse("blosc", f"format version {version}")
    size = size_of(shape, dtype)
    if (total, stored) != (size, len(payload)) or not 0 < block <= max(total, 1):
        refuse(
            "blosc",
            f"its header says {stored} bytes for {total} in blocks of {block}; there are {len(payload)} for {size}",
        )
    number = flags >> 5
    if number >= len(_COMPRESSORS):
        refuse("blosc", f"compressor number {number} is unknown")
    name = _COMPRESSORS[number]
    if name == "snappy" and not flags & _NOT_COMPRESSED:
        return _decode_snappy(payload, size).view(dtype).reshape(shape)
    try:
        data = blosc.decompress(payload)
    except (blosc.blosc_extension.error, ValueError) as error:
        refuse("blosc", f"compressor {name} cannot decode it: {error}")
    return as_array("blosc", data, shape, dtype)


def encode_blosc(array: NDArray[Any]) -> bytes:
    """A Blosc frame, shuffled, by lz4."""
    return bytes(blosc.compress(array.tobytes(), typesize=array.itemsize, clevel=5, cname="lz4"))


def _decode_snappy(payload: memoryview, size: int) -> NDArray[np.uint8]:
    library = _library_with_snappy()
    if library is None:
        refuse("blosc", "compressor snappy is in none of the libraries of this machine")
    out = np.empty(size, np.uint8)
    done = library.blosc_decompress_ctx(bytes(payload), out.ctypes.data, size, 1)
    if done != size:
        refuse("blosc", f"compressor snappy cannot decode it: error {done}")
    return out


@cache
def _library_with_snappy() -> ctypes.CDLL | None:
    """The library of hdf5plugin's Blosc filter, if it has Snappy."""
    for path in Path(hdf5plugin.PLUGIN_PATH).glob("libh5blosc.*"):
        try:
            library = ctypes.CDLL(str(path))
            library.blosc_list_compressors.restype = ctypes.c_char_p
            decode = library.blosc_decompress_ctx
            decode.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
            decode.restype = ctypes.c_int
            if b"snappy" in library.blosc_list_compressors().split(b","):
                return library
        except (OSError, AttributeError):  # another build, which does not export them
            continue
    return None
