"""Bitshuffle (Masui et al. 2015, Astron. Comput. 12, 181): the bits of a block's elements, transposed.

Written here rather than imported: the reference library has no wheels for aarch64 and trusts the
lengths found in its input.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import repeat

import numba
import numpy as np
from numpy.typing import NDArray

_TARGET_BLOCK_BYTES = 8192
_SMALLEST_BLOCK = 128
MULTIPLE = 8
"""A block holds a multiple of this many elements; what is left over is stored as it is."""
_BYTES = numba.types.Array(numba.uint8, 1, "C", readonly=True)
# Compiled on import: the first frame must not wait for it.
_SIGNATURE = numba.void(_BYTES, numba.int64, numba.uint8[::1])


def default_block(itemsize: int) -> int:
    """Elements per block where the stream does not say (bitshuffle's `block_size = 0`)."""
    block = _TARGET_BLOCK_BYTES // itemsize // MULTIPLE * MULTIPLE
    return max(block, _SMALLEST_BLOCK)


def block_lengths(elements: int, block: int) -> Iterator[int]:
    """Elements in each shuffled block of an array; the sum leaves out `elements % 8` at the end."""
    yield from repeat(block, elements // block)  # no list: a header may ask for millions of blocks
    if last := elements % block // MULTIPLE * MULTIPLE:
        yield last


def shuffle(block: NDArray[np.uint8], itemsize: int) -> NDArray[np.uint8]:
    """Transpose the bits of one block: bytes in, as many bytes out.

    Parameters
    ----------
    block
        [n · itemsize] bytes of n elements, n a multiple of 8.
    """
    out = np.empty_like(block)
    _shuffle(block, itemsize, out)
    return out


def unshuffle(block: NDArray[np.uint8], itemsize: int, out: NDArray[np.uint8]) -> None:
    """Undo `shuffle` into `out`, of the same length."""
    _unshuffle(block, itemsize, out)


@numba.njit(inline="always")
def _transpose(x: np.uint64) -> np.uint64:
    """Transpose an 8×8 bit matrix held in 64 bits (Warren, Hacker's Delight, 7-3)."""
    t = (x ^ (x >> np.uint64(7))) & np.uint64(0x00AA00AA00AA00AA)
    x = x ^ t ^ (t << np.uint64(7))
    t = (x ^ (x >> np.uint64(14))) & np.uint64(0x0000CCCC0000CCCC)
    x = x ^ t ^ (t << np.uint64(14))
    t = (x ^ (x >> np.uint64(28))) & np.uint64(0x00000000F0F0F0F0)
    return x ^ t ^ (t << np.uint64(28))


@numba.njit(_SIGNATURE, nogil=True, cache=True)
def _shuffle(block: NDArray[np.uint8], itemsize: int, out: NDArray[np.uint8]) -> None:
    row = block.size // itemsize // 8
    for byte in range(itemsize):
        for group in range(row):
            bits = np.uint64(0)
            for element in range(8):
                value = np.uint64(block[(group * 8 + element) * itemsize + byte])
                bits |= value << np.uint64(8 * element)
            bits = _transpose(bits)
            for bit in range(8):
                out[(byte * 8 + bit) * row + group] = np.uint8((bits >> np.uint64(8 * bit)) & np.uint64(255))


@numba.njit(_SIGNATURE, nogil=True, cache=True)
def _unshuffle(block: NDArray[np.uint8], itemsize: int, out: NDArray[np.uint8]) -> None:
    row = block.size // itemsize // 8
    for byte in range(itemsize):
        for group in range(row):
            bits = np.uint64(0)
            for bit in range(8):
                bits |= np.uint64(block[(byte * 8 + bit) * row + group]) << np.uint64(8 * bit)
            bits = _transpose(bits)
            for element in range(8):
                value = (bits >> np.uint64(8 * element)) & np.uint64(255)
                out[(group * 8 + element) * itemsize + byte] = np.uint8(value)
