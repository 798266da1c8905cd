"""Compressed payloads: each is an array of the shape and type announced, or refused as `Codec`."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from fuzz.reader import Reader

from ptychostream.errors import DropCause, FrameError
from ptychostream.frames.codecs import CODECS, compress, decompress

SHAPES = ((5, 9), (64, 64), (1, 1), (1, 7), (0, 4), (16384, 16384), (1 << 20, 1 << 20), (1 << 62, 1 << 62))
DTYPES = ("u1", "u2", "i4", "u8", "i1")


def seeds() -> Iterable[bytes]:
    """Every codec with every shape that is no lie."""
    counts = np.random.default_rng(0).poisson(1.0, (64, 64))
    for number, codec in enumerate(CODECS):
        for place, shape in enumerate(SHAPES[:4]):
            for kind, dtype in enumerate(DTYPES):
                if codec != "jpeg" or np.dtype(dtype).itemsize == 1:
                    head = bytes([number, place, kind])
                    yield head + compress(counts[: shape[0], : shape[1]].astype(dtype), codec)


def check(data: bytes) -> None:
    """Decode one payload."""
    reader = Reader(data)
    codec, shape, dtype = reader.choice((*CODECS, "nonsense")), reader.choice(SHAPES), np.dtype(reader.choice(DTYPES))
    try:
        array = decompress(reader.rest(), codec, shape, dtype)
    except FrameError as error:
        assert error.cause is DropCause.CODEC
        assert error.remedy
    else:
        assert (array.shape, array.dtype) == (shape, dtype)
        array.sum()
