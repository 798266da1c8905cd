"""What a refinement is called, its states, and how far it moves a position: what the IOC serves and the agent reads."""

from __future__ import annotations

from enum import IntEnum

ENGINE = "refined live"
"""The engine in the reconstruction file of a refined result."""


class RefineStatus(IntEnum):
    """States of the record Refine:Status_RBV."""

    DISABLED = 0
    WAITS = 1
    REFINES = 2
    CONVERGED = 3
    STOPPED = 4


class PositionStatus(IntEnum):
    """States of the record Refine:PositionStatus_RBV."""

    OFF = 0
    WAITS = 1
    CORRECTS = 2
    CORRECTED = 3
    NOT_POSSIBLE = 4
    GIVEN_UP = 5


def reach_px(size: int) -> int:
    """Largest displacement of a position along an axis, object pixels, of frames of `size` × `size`."""
    return size // 4 - 1
