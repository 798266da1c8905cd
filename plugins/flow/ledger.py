"""The counts behind the conservation law: received = stitched + pending + Σ dropped."""

from __future__ import annotations

from dataclasses import dataclass, field

from ptychostream.errors import DropCause


@dataclass
class Ledger:
    """Running totals. What is pending is counted from the containers, never kept here.

    Attributes
    ----------
    lost
        The sum of `dropped`, kept because it is asked for at every look at every run.
    """

    received: int = 0
    stitched: int = 0
    dropped: dict[DropCause, int] = field(default_factory=lambda: dict.fromkeys(DropCause, 0))
    lost: int = 0

    def drop(self, cause: DropCause, frames: int = 1) -> None:
        self.dropped[cause] += frames
        self.lost += frames

    def show(self, stitched: int, dropped: dict[DropCause, int], pending: int) -> None:
        """Take over what another process has counted."""
        self.stitched, self.dropped, self.lost = stitched, dropped, sum(dropped.values())
        self.received = stitched + self.lost + pending

    def holds(self, pending: int) -> bool:
        """Whether every frame received is accounted for."""
        return self.received == self.stitched + pending + self.lost

    def restart(self, pending: int) -> None:
        """Count from zero, with what is still under way counted as received."""
        self.received, self.stitched = pending, 0
        self.dropped, self.lost = dict.fromkeys(DropCause, 0), 0
