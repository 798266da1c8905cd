"""The figures of a refinement."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from ptychostream.refine.pull import Pull
from ptychostream.refine.status import PositionStatus


@dataclass(frozen=True)
class PositionFigures:
    """What the correction of positions tells.

    Attributes
    ----------
    status
        See `PositionStatus`.
    rms_m, largest_m
        Distance of the positions from those that were given; NaN before any correction.
    at_bound
        Frames whose position is at the bound.
    bound_m
        The bound, along an axis; NaN before any frame.
    passes
        Passes of this correction.
    message
        Why positions are not corrected, or why the correction was given up.
    """

    status: PositionStatus = PositionStatus.OFF
    rms_m: float = math.nan
    largest_m: float = math.nan
    at_bound: int = 0
    bound_m: float = math.nan
    passes: int = 0
    message: str = ""


@dataclass(frozen=True)
class RefineFigures:
    """What a refinement tells.

    Attributes
    ----------
    frames, left_out, memory_bytes
        Frames that are kept, those that were left out for want of memory, and memory in use.
    passes, least_passes
        Mean and least number of uses of a frame.
    r_factor, r_trend
        R factor of the frames at their last use, and its change in the last pass.
    visits
        Median over the measured pixels of how often one was measured.
    change_rad
        Rms movement of the phase in the last pass. NaN before two.
    pull
        See `Pull`.
    converged
        Whether more passes would change nothing, and no position will move.
    positions
        See `PositionFigures`.
    """

    frames: int = 0
    left_out: int = 0
    memory_bytes: int = 0
    passes: float = 0.0
    least_passes: int = 0
    r_factor: float = math.nan
    r_trend: float = math.nan
    visits: float = 0.0
    change_rad: float = math.nan
    pull: Pull = field(default_factory=Pull)
    converged: bool = False
    positions: PositionFigures = field(default_factory=PositionFigures)
