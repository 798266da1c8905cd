"""What the edge's refinement does, as its records say it."""

from __future__ import annotations

from dataclasses import dataclass

from ptychostream.refine.status import RefineStatus

_NAME_BYTES = 39


@dataclass(frozen=True)
class Refining:
    """The state of the refinement and the scan that it is of, as Refine:Scan_RBV holds it: at most 39 bytes."""

    status: int = RefineStatus.DISABLED
    scan: str = ""

    def is_of(self, scan_id: str) -> bool:
        """Whether this is the scan."""
        name = scan_id.encode()[:_NAME_BYTES].decode(errors="ignore")
        return bool(name) and self.scan == name
