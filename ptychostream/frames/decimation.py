"""Decimation: infer about one pattern in n, spread evenly over the sample.

Every n-th pattern in time is not evenly spread over the sample: on a raster whose row length is a multiple of n it
leaves stripes, and while the stage rests it keeps the same place again and again. Patterns are therefore selected in
space: a pattern is kept if the nearest kept pattern is farther away than a radius r. The kept patterns are then an
r-net of the scan, for every trajectory and every order: kept patterns are at least r apart, and every pattern that is
left out has a kept one within r, so that there are no holes (dart throwing: Cook 1986, ACM Trans. Graph. 5, 51).
Low-discrepancy sequences of frame numbers or a dither mask keep exactly 1/n of a regular raster, but they leave
clusters and holes if the spacing is uneven, and the positions of a live scan are not known beforehand.

The radius follows from the area A of the sample per position: one pattern in n needs r ~ √(n·A). A slow correction
by the share that was kept so far, a factor between 0.5 and 1.25, brings the share to 1/n.
"""

from __future__ import annotations

import math
import statistics
from collections import deque

import numpy as np
from numpy.typing import NDArray

LARGEST_FACTOR = 64

_PACKING = 0.95
"""r / √(n·A). It is just below 1, so that on a square raster n = 4, 9 … keep every 2nd, 3rd … row and column."""
_LEAST_CORRECTION, _MOST_CORRECTION = 0.5, 1.25
_PRIOR_FRAMES = 64
_RECENT = 1024
_RARELY_FROM, _RARELY = 64, 16
_SAMPLES = 512
_MOST_KEPT = 1 << 17


class Spacing:
    """Estimates the area of the sample per position, from some of a scan's positions as they come.

    The area is the distance to the nearest neighbour times the distance to the nearest position of another row,
    because the frames of a fly scan are closer along a row than across rows. Neighbours are searched among the last
    1024 positions. Frames at the same position share its area.
    """

    def __init__(self) -> None:
        self._recent = np.full((_RECENT, 2), np.inf)
        self._seen = 0
        self._every = 1
        self._nearest: list[float] = []
        self._across: list[float] = []
        self.area_m2 = 0.0
        """Area per position, m². 0 while all positions are the same place."""

    def add(self, x_m: float, y_m: float) -> None:
        """Add the scan's next position."""
        if self._seen and self._seen % self._every == 0:
            self._sample(x_m, y_m)
        self._recent[self._seen % _RECENT] = x_m, y_m
        self._seen += 1
        if self._seen == _RARELY_FROM:
            self._every = max(self._every, _RARELY)

    def _sample(self, x_m: float, y_m: float) -> None:
        newest_last = np.roll(self._recent, -(self._seen % _RECENT), axis=0) if self._seen > _RECENT else self._recent
        back = newest_last[: min(self._seen, _RECENT)][::-1]
        distance = np.hypot(back[:, 0] - x_m, back[:, 1] - y_m)
        self._nearest.append(float(distance.min()))
        returned = distance < 0.5 * np.maximum.accumulate(distance)
        other_row = distance[int(returned.argmax()) :] if returned.any() else distance[:0]
        across = other_row[other_row > 0]
        if len(across):
            self._across.append(float(across.min()))
        moved = [found for found in self._nearest if found > 0]
        if moved:
            along = statistics.median(moved)
            across_m = max(along, statistics.median(self._across)) if self._across else along
            self.area_m2 = along * across_m * len(moved) / len(self._nearest)
        if len(self._nearest) >= _SAMPLES:  # drop every second sample, so that the samples always cover the whole scan
            self._nearest, self._across = self._nearest[::2], self._across[::2]
            self._every *= 2


class Thinning:
    """Decides for each position of one scan, one after the other, whether its pattern is inferred.

    Parameters
    ----------
    factor
        About one pattern in `factor` is kept. It may be changed at any time. 1 keeps all.
    """

    def __init__(self, factor: int = 1) -> None:
        self.factor = factor
        self._spacing = Spacing()
        self._offered = 0
        self._kept = 0
        self._since = 0  # patterns left out since the last kept one
        self._cell = 0.0
        self._cells: dict[tuple[int, int], list[tuple[float, float]]] = {}
        self._places: deque[tuple[float, float]] = deque(maxlen=_MOST_KEPT)
        self._counted_for = factor

    @property
    def radius_m(self) -> float:
        """The radius r at this moment. 0 while the spacing of the scan is not known."""
        share = (self._kept * self.factor + _PRIOR_FRAMES) / (self._offered + _PRIOR_FRAMES)
        correction = min(max(share * share, _LEAST_CORRECTION), _MOST_CORRECTION)
        return _PACKING * correction * math.sqrt(self.factor * self._spacing.area_m2)

    def keep(self, x_m: float, y_m: float) -> bool:
        """Whether the pattern at (x_m, y_m), in metres, is inferred."""
        self._spacing.add(x_m, y_m)
        if self.factor != self._counted_for:  # the share is counted anew
            self._counted_for, self._offered, self._kept = self.factor, 0, 0
        self._offered += 1
        keep = self.factor <= 1 or self._far(x_m, y_m)
        if keep:
            self._remember(x_m, y_m)
            self._kept += 1
            self._since = 0
        else:
            self._since += 1
        return keep

    def _far(self, x_m: float, y_m: float) -> bool:
        radius = self.radius_m
        if radius == 0:  # the stage has not moved yet: keep every n-th pattern in time
            return not self._places or self._since + 1 >= self.factor
        if not radius <= self._cell <= 4 * radius:
            self._sort_into(1.5 * radius)
        column, row = int(x_m // self._cell), int(y_m // self._cell)
        limit = radius * radius
        for i in (column, column - 1, column + 1):
            for j in (row, row - 1, row + 1):
                for near_x, near_y in self._cells.get((i, j), ()):
                    if (near_x - x_m) ** 2 + (near_y - y_m) ** 2 < limit:
                        return False
        return True

    def _remember(self, x_m: float, y_m: float) -> None:
        if self._cell:
            if len(self._places) == _MOST_KEPT:
                self._forget_oldest()
            self._cells.setdefault((int(x_m // self._cell), int(y_m // self._cell)), []).append((x_m, y_m))
        self._places.append((x_m, y_m))

    def _forget_oldest(self) -> None:
        old_x, old_y = self._places[0]
        cell = int(old_x // self._cell), int(old_y // self._cell)
        self._cells[cell].remove((old_x, old_y))
        if not self._cells[cell]:
            del self._cells[cell]

    def _sort_into(self, cell_m: float) -> None:
        """Sort the kept positions into cells of size `cell_m`, so that a search needs nine cells only."""
        self._cell = cell_m
        self._cells = {}
        for x_m, y_m in self._places:
            self._cells.setdefault((int(x_m // cell_m), int(y_m // cell_m)), []).append((x_m, y_m))


def thinned(positions_m: NDArray[np.float64], factor: int) -> NDArray[np.bool_]:
    """Which of a scan's positions are kept: [N] flags for [N, 2] positions in their order."""
    thinning = Thinning(factor)
    return np.array([thinning.keep(float(x), float(y)) for x, y in positions_m], dtype=bool)


class AutoFactor:
    """A decimation factor that follows the load: it rises at once with the backlog, and falls slowly.

    It rises when the queue is more than half full, to the factor that the load needs and by at least one. It rises
    again if the queue does not become shorter. It falls when, for `HOLD_S`, the queue was nearly empty and the load
    was one that the lower factor can carry. An empty queue alone does not lower it, because the queue may be empty
    only because patterns are left out.
    """

    RAISE_USE, LOWER_USE = 0.5, 0.1
    RAISE_EVERY_S, HOLD_S = 0.5, 3.0
    SPARE = 0.85
    """The largest load of the engine that a factor is chosen for, as a part of the engine's rate."""

    def __init__(self) -> None:
        self.factor = 1
        self._raised_at, self._raised_use = -math.inf, 0.0
        self._calm_since: float | None = None

    def update(self, now_s: float, queue_use: float, load: float) -> int:
        """Returns the factor from now on.

        Parameters
        ----------
        now_s
            Monotonic time, seconds.
        queue_use
            Part of the queue in use, 0 … 1.
        load
            The engine's load if no pattern were left out: frames offered per second times the engine's seconds per
            frame. 0 if not known yet.
        """
        needed = min(max(1, math.ceil(load / self.SPARE)), LARGEST_FACTOR)
        if queue_use > self.RAISE_USE:
            self._calm_since = None
            falls = self.factor >= needed and queue_use < self._raised_use
            if now_s - self._raised_at >= self.RAISE_EVERY_S and self.factor < LARGEST_FACTOR and not falls:
                self._raised_at, self._raised_use = now_s, queue_use
                self.factor = max(self.factor + 1, needed)
        elif queue_use < self.LOWER_USE and needed < self.factor:
            self._calm_since = now_s if self._calm_since is None else self._calm_since
            if now_s - self._calm_since >= self.HOLD_S:
                self._calm_since = None
                self.factor = needed
        else:
            self._calm_since = None
        return self.factor
