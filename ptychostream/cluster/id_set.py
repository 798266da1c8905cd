"""A set of frame ids as a bitmap: the frames that a consumer has had, small enough to be sent every second."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

MAX_SPAN = 1 << 26
"""Ids further apart than this cannot be in one set: 8 MiB of bits."""

_ONES = np.array([bin(byte).count("1") for byte in range(256)], np.int64)


class IdSet:
    """Frame ids of one scan.

    Parameters
    ----------
    first
        Id of the lowest bit, a multiple of 8.
    bits
        The bitmap, lowest id first in each byte's lowest bit.
    """

    def __init__(self, first: int = 0, bits: bytes | bytearray | NDArray[np.uint8] = b"") -> None:
        if first % 8:
            raise ValueError(f"first id {first} is no multiple of 8")
        self._first = first
        self._bits = bytearray(bits)
        self.outside = 0
        """Ids that did not fit within `MAX_SPAN`."""

    @property
    def first(self) -> int:
        """Id of the bitmap's lowest bit."""
        return self._first

    def add(self, frame_id: int) -> None:
        """Add one id; an id beyond the span is only counted in `outside`."""
        if not self._bits:
            self._first = frame_id & ~7
        index = frame_id - self._first
        if index < 0:
            below = (-index + 7) >> 3
            if 8 * (below + len(self._bits)) > MAX_SPAN:
                self.outside += 1
                return
            self._bits[:0] = bytes(below)
            self._first -= 8 * below
            index += 8 * below
        byte = index >> 3
        if byte >= len(self._bits):
            if 8 * (byte + 1) > MAX_SPAN:
                self.outside += 1
                return
            self._bits.extend(bytes(byte + 1 - len(self._bits)))
        self._bits[byte] |= 1 << (index & 7)

    def discard(self, frame_id: int) -> None:
        """Remove one id if it is in the set."""
        if frame_id in self:
            index = frame_id - self._first
            self._bits[index >> 3] &= ~(1 << (index & 7))

    def common(self, other: IdSet) -> list[int]:
        """The ids in both sets, lowest first."""
        first = max(self._first, other._first)
        end = min(self._first + 8 * len(self._bits), other._first + 8 * len(other._bits))
        if end <= first:
            return []
        mine, theirs = (one.bits[(first - one.first) // 8 : (end - one.first) // 8] for one in (self, other))
        return [first + int(index) for index in np.flatnonzero(np.unpackbits(mine & theirs, bitorder="little"))]

    def __len__(self) -> int:
        return int(_ONES[self.bits].sum())

    def __contains__(self, frame_id: int) -> bool:
        index = frame_id - self._first
        return 0 <= index < 8 * len(self._bits) and bool(self._bits[index >> 3] >> (index & 7) & 1)

    @property
    def bits(self) -> NDArray[np.uint8]:
        """A copy of the bitmap."""
        return np.frombuffer(bytes(self._bits), np.uint8)

    @property
    def lowest(self) -> int | None:
        """The lowest id; None when there is none."""
        used = np.flatnonzero(self.bits)
        if used.size == 0:
            return None
        byte = int(used[0])
        return self._first + 8 * byte + ((self._bits[byte] & -self._bits[byte]).bit_length() - 1)

    @property
    def highest(self) -> int | None:
        """The highest id; None when there is none."""
        used = np.flatnonzero(self.bits)
        if used.size == 0:
            return None
        byte = int(used[-1])
        return self._first + 8 * byte + self._bits[byte].bit_length() - 1

    def up_to(self, last: int) -> int:
        """How many ids are at most `last`."""
        index = last - self._first + 1
        if index <= 0:
            return 0
        bits = self.bits
        if index >= 8 * len(bits):
            return len(self)
        whole, rest = divmod(index, 8)
        inside = int(_ONES[bits[:whole]].sum())
        return inside + (int(_ONES[bits[whole] & ((1 << rest) - 1)]) if rest else 0)

    def copy(self) -> IdSet:
        """A copy of the set."""
        made = IdSet(self._first, self._bits)
        made.outside = self.outside
        return made


def union(sets: Iterable[IdSet]) -> tuple[IdSet, int]:
    """All the ids of several sets, and how many of them were in a set before: frames that two consumers had."""
    held = [one for one in sets if one.lowest is not None]
    if not held:
        return IdSet(), 0
    first = min(one.first for one in held)
    end = max(one.first + 8 * len(one.bits) for one in held)
    if end - first > MAX_SPAN:
        # another counter: ids far from those of the first set are left out
        held = [one for one in held if abs(one.first - held[0].first) + 8 * len(one.bits) <= MAX_SPAN // 2]
        first = min(one.first for one in held)
        end = max(one.first + 8 * len(one.bits) for one in held)
    bits = np.zeros((end - first) // 8, np.uint8)
    twice = 0
    for one in held:
        at = (one.first - first) // 8
        mine = one.bits
        there = bits[at : at + len(mine)]
        twice += int(_ONES[there & mine].sum())
        there |= mine
    return IdSet(first, bits), twice
