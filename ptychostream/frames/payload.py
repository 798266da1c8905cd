"""What the decoders of payloads share: sizes are checked, and a payload that is wrong is refused by name."""

from __future__ import annotations

import math
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from ptychostream.errors import DropCause, FrameError

Bytes = bytes | bytearray | memoryview


def refuse(codec: str, what: str) -> NoReturn:
    """Raise the FrameError of a payload; `codec` is "" for one that is not compressed."""
    raise FrameError(
        DropCause.CODEC,
        f"{codec or 'raw'} payload: {what}",
        where="frame",
        remedy="look at the codec settings of the detector and at what lies between it and here",
    )


def size_of(shape: tuple[int, ...], dtype: np.dtype[Any]) -> int:
    """Bytes of an array."""
    return math.prod(shape) * dtype.itemsize


def as_array(codec: str, data: Bytes, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
    """The array of decoded bytes; another number of bytes is refused."""
    if len(data) != size_of(shape, dtype):
        refuse(codec, f"{len(data)} bytes, where {shape} {dtype} takes {size_of(shape, dtype)}")
    return np.frombuffer(data, dtype).reshape(shape)


def take(codec: str, payload: memoryview, at: int, size: int) -> memoryview:
    """`size` bytes of a payload from `at` on; a payload that ends before is refused."""
    if at + size > len(payload):
        refuse(codec, f"truncated: {at + size} bytes needed, {len(payload)} there")
    return payload[at : at + size]


def nothing_left(codec: str, size: int) -> None:
    """Refuse a payload with `size` bytes behind its end."""
    if size:
        refuse(codec, f"{size} bytes too many")
