"""Learning rates over the epochs: pure functions."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

ScheduleName = Literal["cyclic", "onecycle"]
HALF_CYCLE_EPOCHS = 6
"""Epochs from the lowest to the highest rate, and from there back, as published for PtychoNN."""


def make_schedule(name: ScheduleName, peak: float, epochs: int) -> Callable[[float], float]:
    """The learning rate at a time between 0 and `epochs`, in epochs."""
    if name == "onecycle":
        return lambda epoch: one_cycle(epoch / epochs, peak)
    return lambda epoch: cyclic(epoch / HALF_CYCLE_EPOCHS, peak)


def cyclic(half_cycles: float, peak: float) -> float:
    """Triangles on a base of peak/10, half as high from cycle to cycle (Smith 2017, "triangular2")."""
    cycle, phase = divmod(half_cycles, 2.0)
    lowest = peak / 10
    return lowest + (peak - lowest) * (1 - abs(phase - 1)) / 2**cycle


def one_cycle(progress: float, peak: float) -> float:
    """From peak/25 to the peak in the first 30 %, then to almost zero, both along cosines (Smith, Topin 2018)."""
    rise = 0.3
    if progress < rise:
        return _cosine(progress / rise, peak / 25, peak)
    return _cosine((progress - rise) / (1 - rise), peak, peak / 1e4)


def _cosine(t: float, start: float, end: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * t)) / 2
