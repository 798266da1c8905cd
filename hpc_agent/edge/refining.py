"""What the edge's refinement does, as its records say it."""

from __future__ import annotations

from dataclasses import dataclass

from ptychostream.refine.status import RefineStatus
from ptychostream.statements.record_text import clip


@dataclass(frozen=True)
class Refining:
    """The state of the refinement and the scan that it is of, as Refine:Scan_RBV holds it (see `record_text.clip`)."""

    status: int = RefineStatus.DISABLED
    scan: str = ""

    def is_of(self, scan_id: str) -> bool:
        """Whether this is the scan."""
        return bool(scan_id) and self.scan == clip(scan_id).decode()
