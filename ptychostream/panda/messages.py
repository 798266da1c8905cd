"""What a capture tells: that it has begun, its rows, and how it ended."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Doubles = NDArray[np.float64]


class Begun(NamedTuple):
    """A capture has begun. `arm` tells it from others; rows with an index below `missed` were sent before."""

    arm: str
    missed: int


class Rows(NamedTuple):
    """Rows of the capture `arm` from index `first` on: [n] x and y in metres."""

    arm: str
    first: int
    x_m: Doubles
    y_m: Doubles


class Ended(NamedTuple):
    """A capture has ended after `rows` rows that came here. `problem` is empty if it ended as it should."""

    arm: str
    rows: int
    reason: str
    problem: str
