"""The state that the soak and its detector share. It is a mapped file, so that SIGKILL loses nothing.

The detector writes the number of sent frames of each scan. The soak writes which scan may run, when it must end, and
how the frames are changed.
"""

from __future__ import annotations

import os
from enum import IntEnum
from pathlib import Path

import numpy as np

SCANS = 1 << 16
_HEADER = 16


class Mark(IntEnum):
    """Which frames make the engine raise."""

    NONE = 0
    NEXT = 1
    ALL = 2


class Place(IntEnum):
    """The positions in the frames' attributes."""

    SCAN = 0
    RUNAWAY = 1  # metres away: the canvas would be larger than allowed
    BESIDE = 2  # a larger field, which is allowed


class Journal:
    """Each field has one writing process and many readers. A write of an int64 is atomic.

    Parameters
    ----------
    path
        The file. It is created if it does not exist.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        size = _HEADER + SCANS
        if not Path(path).exists():
            Path(path).write_bytes(bytes(8 * size))
        self._cells = np.memmap(path, np.int64, "r+", shape=(size,))
        self._sent = self._cells[_HEADER:]

    @property
    def allowed(self) -> int:
        """The latest scan that may be sent. The number of the first scan is 1."""
        return int(self._cells[0])

    @allowed.setter
    def allowed(self, scan: int) -> None:
        self._cells[0] = scan

    @property
    def ending(self) -> int:
        """The scan that must end with its next frame."""
        return int(self._cells[1])

    @ending.setter
    def ending(self, scan: int) -> None:
        self._cells[1] = scan

    @property
    def ended(self) -> int:
        """The latest completely sent scan."""
        return int(self._cells[2])

    @ended.setter
    def ended(self, scan: int) -> None:
        self._cells[2] = scan

    @property
    def mark(self) -> Mark:
        return Mark(int(self._cells[3]))

    @mark.setter
    def mark(self, mark: Mark) -> None:
        self._cells[3] = mark

    @property
    def place(self) -> Place:
        return Place(int(self._cells[4]))

    @place.setter
    def place(self, place: Place) -> None:
        self._cells[4] = place

    @property
    def clock_ns(self) -> int:
        """Offset of the detector's clock in ns."""
        return int(self._cells[5])

    @clock_ns.setter
    def clock_ns(self, offset: int) -> None:
        self._cells[5] = offset

    def sent(self, scan: int) -> int:
        """Number of sent frames of the scan. It may be one too high if the detector was killed."""
        return int(self._sent[scan])

    def note_sent(self, scan: int, frames: int) -> None:
        self._sent[scan] = frames

    @property
    def total(self) -> int:
        """Number of sent frames of all scans."""
        return int(self._sent[: self.allowed + 1].sum())
