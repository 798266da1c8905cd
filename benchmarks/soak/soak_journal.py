"""What the soak and its detector tell each other: a mapped file, so that a SIGKILL loses nothing that was written.

The detector writes how many frames of each scan it has sent; the soak writes which scan may run, when it is to end,
and what the frames are to be like.
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
    """Where frames say that they were taken."""

    SCAN = 0
    RUNAWAY = 1  # metres away: more canvas than may be
    BESIDE = 2  # a larger field, which is allowed


class Journal:
    """One process writes each field, any may read it; int64s are written whole.

    Parameters
    ----------
    path
        The file; made when it is not there.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        size = _HEADER + SCANS
        if not Path(path).exists():
            Path(path).write_bytes(bytes(8 * size))
        self._cells = np.memmap(path, np.int64, "r+", shape=(size,))
        self._sent = self._cells[_HEADER:]

    @property
    def allowed(self) -> int:
        """The latest scan that may be sent; scans are numbered from 1."""
        return int(self._cells[0])

    @allowed.setter
    def allowed(self, scan: int) -> None:
        self._cells[0] = scan

    @property
    def ending(self) -> int:
        """The scan whose next frame is to be its last."""
        return int(self._cells[1])

    @ending.setter
    def ending(self, scan: int) -> None:
        self._cells[1] = scan

    @property
    def ended(self) -> int:
        """The latest scan that was sent to its end."""
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
        """How far the detector's clock is off."""
        return int(self._cells[5])

    @clock_ns.setter
    def clock_ns(self, offset: int) -> None:
        self._cells[5] = offset

    def sent(self, scan: int) -> int:
        """Frames of the scan that were sent; one more where the detector was killed as it sent one."""
        return int(self._sent[scan])

    def note_sent(self, scan: int, frames: int) -> None:
        self._sent[scan] = frames

    @property
    def total(self) -> int:
        """Frames sent in all."""
        return int(self._sent[: self.allowed + 1].sum())
