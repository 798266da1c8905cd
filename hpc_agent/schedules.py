"""Learning rates by step: pure functions."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

ScheduleName = Literal["cyclic", "onecycle"]
HALF_CYCLE_EPOCHS = 6
"""Epochs from the lowest to the highest rate and as many back, as PtychoNN is published."""


def make_schedule(name: ScheduleName, peak: float, epochs: int, steps_per_epoch: int) -> Callable[[int], float]:
    """The learning rate of step 0, 1, … epochs · steps_per_epoch - 1."""
    steps = epochs * steps_per_epoch
    if name == "onecycle":
        return lambda step: one_cycle(step, steps, peak)
    return lambda step: cyclic(step, HALF_CYCLE_EPOCHS * steps_per_epoch, peak)


def cyclic(step: int, half_cycle: int, peak: float) -> float:
    """Triangles on a base of peak/10, half as high from cycle to cycle (Smith 2017, "triangular2")."""
    cycle, phase = divmod(step / half_cycle, 2.0)
    lowest = peak / 10
    return lowest + (peak - lowest) * (1 - abs(phase - 1)) / 2**cycle


def one_cycle(step: int, steps: int, peak: float) -> float:
    """From peak/25 to the peak over 30 % of the steps, then to almost nothing, both by cosines (Smith, Topin 2018)."""
    rise = 0.3 * steps
    if step < rise:
        return _cosine(step / rise, peak / 25, peak)
    return _cosine((step - rise) / max(steps - rise, 1), peak, peak / 1e4)


def _cosine(t: float, start: float, end: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * t)) / 2
