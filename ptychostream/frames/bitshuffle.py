"""Bitshuffle (Masui et al. 2015, Astron. Comput. 12, 181): transposes the bits of a block's elements.

The reference library is not used, because it has no wheels for aarch64 and does not check the lengths in its input.
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
"""The number of elements in a block is a multiple of this. The remaining elements are stored unshuffled."""
_BYTES = numba.types.Array(numba.uint8, 1, "C", readonly=True)
# The kernels are compiled on import, so that the first frame does not wait for the compiler.
_SIGNATURE = numba.void(_BYTES, numba.int64, numba.uint8[::1])


def default_block(itemsize: int) -> int:
    """Elements per block if the stream does not give them (bitshuffle's `block_size = 0`)."""
    block = _TARGET_BLOCK_BYTES // itemsize // MULTIPLE * MULTIPLE
    return max(block, _SMALLEST_BLOCK)


def block_lengths(elements: int, block: int) -> Iterator[int]:
    """Elements in each shuffled block of an array. The last `elements % 8` elements belong to no block."""
    yield from repeat(block, elements // block)  # a generator, because a header may announce millions of blocks
    if last := elements % block // MULTIPLE * MULTIPLE:
        yield last


def shuffle(block: NDArray[np.uint8], itemsize: int) -> NDArray[np.uint8]:
    """Transpose the bits of one block. The result is as long as the input.

    Parameters
    ----------
    block
        [n · itemsize] bytes of n elements, n a multiple of 8.
    """
    out = np.empty_like(block)
    _shuffle(block, itemsize, out)
    return out


def unshuffle(block: NDArray[np.uint8], itemsize: int, out: NDArray[np.uint8]) -> None:
    """Undo `shuffle` and write the result to `out`, which is as long as `block`."""
    _unshuffle(block, itemsize, out)


@numba.njit(inline="always")
def _transpose(x: np.uint64) -> np.uint64:
    """Transpose an 8×8 matrix of bits in a 64-bit integer (Warren, Hacker's Delight, 7-3)."""
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
