"""A codec of one's own: the counts as a sparse list of (pixel, count), for patterns that are almost empty.

In the tree, put both functions into ptychostream/frames/codecs.py and name them in its tables DECODERS and ENCODERS.
"""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptychostream import DropCause, FrameError


def encode_sparse(counts: NDArray[Any]) -> bytes:
    """[H, W] counts as bytes: the pixels that are not 0 as uint32, then their counts in the array's own type."""
    pixels = np.flatnonzero(counts).astype(np.uint32)
    return pixels.tobytes() + counts.reshape(-1)[pixels].tobytes()


def decode_sparse(payload: memoryview, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
    """The array. Whatever the payload holds, the result is an array of that shape or a FrameError."""
    pairs, rest = divmod(len(payload), 4 + dtype.itemsize)
    pixels = np.frombuffer(payload[: 4 * pairs], np.uint32)
    if rest or (pairs and pixels.max() >= math.prod(shape)):
        raise FrameError(DropCause.CODEC, "sparse payload: not whole, or a pixel outside the frame", where="frame")
    counts = np.zeros(math.prod(shape), dtype)
    counts[pixels] = np.frombuffer(payload[4 * pairs :], dtype)
    return counts.reshape(shape)
