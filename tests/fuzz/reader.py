"""Bytes read as choices, so that a fuzzer's bytes become structures; past the end everything is the first choice."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")
INTERESTING = (0, 1, -1, 2, 7, 8, 16, 127, 255, 256, 65535, 65536, 1 << 24, (1 << 31) - 1, -(1 << 31), 1 << 40, 1 << 62)
FLOATS = (0.0, 1.0, -1.0, 1e-9, 1e9, 1.7e9, float("nan"), float("inf"), float("-inf"), 1e308)


class Reader:
    """Takes `data` apart from its beginning."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def __bool__(self) -> bool:
        """Whether anything is left."""
        return self._at < len(self._data)

    def byte(self) -> int:
        self._at += 1
        return self._data[self._at - 1] if self._at <= len(self._data) else 0

    def take(self, size: int) -> bytes:
        taken = self._data[self._at : self._at + size]
        self._at += size
        return taken

    def rest(self) -> bytes:
        return self.take(len(self._data))

    def choice(self, choices: Sequence[T]) -> T:
        return choices[self.byte() % len(choices)]

    def integer(self) -> int:
        """Small ones, those at which things change, and any of 64 bits."""
        kind = self.byte()
        if kind < 128:
            return kind % 64
        if kind < 224:
            return INTERESTING[kind % len(INTERESTING)]
        return int(struct.unpack("<q", self.take(8).ljust(8, b"\0"))[0])

    def number(self) -> float:
        """Small whole ones, those at which things change, and any double."""
        kind = self.byte()
        if kind < 128:
            return float(kind)
        if kind < 224:
            return FLOATS[kind % len(FLOATS)]
        return float(struct.unpack("<d", self.take(8).ljust(8, b"\0"))[0])

    def text(self) -> str:
        return self.take(self.byte() % 16).decode("utf-8", errors="replace")
