"""Which points of a scan to measure next: those that make the picture's variance least.

The variance of the stitched phase at a place of weight W is 1 / (1/prior + W/σ²) (see `maps`). A point adds its
footprint to the weights around it. The points are chosen one after the other, each for the largest decrease of the sum
over all places. A choice never raises the worth of another point, so that the order in which they are looked at changes
nothing, and the result is within 1 − 1/e of the best possible decrease (Nemhauser, Wolsey & Fisher, Math. Program. 14,
265 (1978)).
"""

from __future__ import annotations

import heapq

import numpy as np
from numpy.typing import NDArray

from ptychostream.adaptive.maps import Maps, footprint


def next_points(
    points_m: NDArray[np.float64], measured: NDArray[np.bool_], maps: Maps, beam_m: float, count: int
) -> NDArray[np.intp]:
    """Choose the next points. The same arguments give the same points.

    Parameters
    ----------
    points_m
        [N, 2] (x, y) of every point that the scan could measure, metres.
    measured
        [N] which of them are measured; they are not chosen again.
    maps
        What is known of the picture.
    beam_m
        Diameter of the beam, metres.
    count
        Number of points that are wanted.

    Returns
    -------
    Indices into `points_m` in the order of their worth; fewer than `count` where fewer are left.
    """
    patch = footprint(beam_m, maps.cell_m)
    half = patch.shape[0] // 2
    weight = np.pad(maps.weight, half)
    variance = np.pad(maps.variance, half, mode="edge")
    of_interest = np.pad(np.ones_like(maps.weight), half)
    at = np.rint((points_m - np.array(maps.first_m)) / maps.cell_m).astype(int)

    def window(point: int) -> tuple[slice, slice]:
        column, row = at[point]
        return slice(row, row + 2 * half + 1), slice(column, column + 2 * half + 1)

    def worth(point: int) -> float:
        """By how much the point makes the sum of the variances smaller, rad² · cells."""
        here = window(point)
        before = 1 / maps.prior + weight[here] / variance[here]
        after = before + patch / variance[here]
        return float((of_interest[here] * (1 / before - 1 / after)).sum())

    # A point's worth only falls, so that one whose worth, computed anew, is still the largest is the best.
    heap = [(-worth(int(point)), int(point), 0) for point in np.flatnonzero(~measured)]
    heapq.heapify(heap)
    chosen: list[int] = []
    while heap and len(chosen) < count:
        _, point, known_at = heapq.heappop(heap)
        if known_at == len(chosen):
            chosen.append(point)
            weight[window(point)] += patch
        else:
            heapq.heappush(heap, (-worth(point), point, len(chosen)))
    return np.array(chosen, dtype=np.intp)
