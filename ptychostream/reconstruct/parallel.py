"""Which positions may be worked on at once: those whose patches share no object pixel.

The positions are cut in two parts and the strip between them, which is as wide as a patch. The two parts are
independent and go at the same time, the strip afterwards, cut in the same way along the other axis. With more threads
the two parts are cut again (nested dissection: George, SIAM J. Numer. Anal. 10, 345 (1973)). No object pixel is ever
written by two threads, so that no lock is needed and the result does not depend on which thread is faster.
"""

from __future__ import annotations

from itertools import zip_longest

import numpy as np
from numpy.typing import NDArray

Indices = NDArray[np.int64]

FEWEST = 8
"""Fewer positions are not cut: threads would wait for one another."""
WORSE = 0.8
"""The smaller part of a cut is at least so much of that of the most even one: cuts lie at other places every time."""


def rounds(
    corners: Indices, order: Indices, gap: int, threads: int, random: np.random.Generator
) -> list[list[Indices]]:
    """Rounds, one after another, of parts that are independent; `order` within each part is kept.

    Parameters
    ----------
    corners
        [N, 2] (row, column) of all patches.
    order
        Those to be worked on.
    gap
        Patches whose corners differ by at least so much along one axis are independent.
    threads
        Most parts in a round.
    random
        Chooses among cuts that are nearly even.
    """
    if threads == 1 or len(order) < FEWEST:
        return [[order]] if len(order) else []
    cut = _cut(corners[order], gap, random)
    if cut is None:
        return [[order]]
    low, between, high = (order[part] for part in cut)
    half = threads // 2
    below = rounds(corners, low, gap, threads - half, random)
    above = rounds(corners, high, gap, half, random)
    none: list[Indices] = []
    together = [first + second for first, second in zip_longest(below, above, fillvalue=none)]
    return together + rounds(corners, between, gap, threads, random)


def _cut(corners: Indices, gap: int, random: np.random.Generator) -> tuple[NDArray[np.bool_], ...] | None:
    """Masks of the positions below, in, and above a strip; None where no strip leaves anything on both sides."""
    best = 0
    choices: list[tuple[int, int, int]] = []
    for axis in (0, 1):
        along = corners[:, axis]
        starts = np.unique(along)[1:]
        ranked = np.sort(along)
        below = np.searchsorted(ranked, starts)
        above = len(along) - np.searchsorted(ranked, starts - 1 + gap)
        smaller = np.minimum(below, above)
        choices += [(int(less), axis, int(start)) for less, start in zip(smaller, starts, strict=True) if less]
        best = max(best, int(smaller.max(initial=0)))
    good = [choice for choice in choices if choice[0] >= WORSE * best]
    if not good:
        return None
    _, axis, start = good[int(random.integers(len(good)))]
    along = corners[:, axis]
    return along < start, (along >= start) & (along < start - 1 + gap), along >= start - 1 + gap
