"""The counts behind the conservation law: received = stitched + pending + Σ dropped."""

from __future__ import annotations

from dataclasses import dataclass, field

from ptychostream.errors import DropCause


@dataclass
class Ledger:
    """Running totals. What is pending is counted from the containers, never kept here."""

    received: int = 0
    stitched: int = 0
    dropped: dict[DropCause, int] = field(default_factory=lambda: dict.fromkeys(DropCause, 0))

    def drop(self, cause: DropCause, frames: int = 1) -> None:
        self.dropped[cause] += frames

    def holds(self, pending: int) -> bool:
        """Whether every frame received is accounted for."""
        return self.received == self.stitched + pending + sum(self.dropped.values())

    def restart(self, pending: int) -> None:
        """Count from zero, with what is still under way counted as received."""
        self.received, self.stitched = pending, 0
        self.dropped = dict.fromkeys(DropCause, 0)
