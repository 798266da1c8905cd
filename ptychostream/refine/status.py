"""What a refinement is called, and its states, as the IOC serves them and the agent reads them."""

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
