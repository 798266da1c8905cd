"""Where the frames of a scan were taken: a sample of bounded size, for showing."""

from __future__ import annotations

import threading
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

MOST = 2000
"""Places that are kept."""


class Trajectory:
    """The places of a scan's frames in the order in which they were stitched. Any thread.

    When there are more than `most`, every second one is forgotten, and of those that follow only every second one is
    taken; and so on.

    Attributes
    ----------
    seen
        Number of places that were added.
    """

    def __init__(self, most: int = MOST) -> None:
        self.seen = 0
        self._most = most
        self._stride = 1
        self._places: list[tuple[float, float]] = []
        self._lock = threading.Lock()

    def add(self, places: Iterable[tuple[float, float]]) -> None:
        """Add (x, y) in metres."""
        with self._lock:
            for place in places:
                if self.seen % self._stride == 0:
                    self._places.append(place)
                self.seen += 1
                if len(self._places) > self._most:
                    self._places = self._places[::2]
                    self._stride *= 2

    def places_um(self) -> NDArray[np.float64]:
        """[2, n] x and y in µm."""
        with self._lock:
            places = self._places[:]
        return 1e6 * np.array(places, np.float64).reshape(-1, 2).T
