"""An edge that says what it is told to say, for the tests of a scan's work."""

from __future__ import annotations

from dataclasses import dataclass, field

from ptychostream.hpc_agent.edge.judge_dose import EdgeDose
from ptychostream.hpc_agent.edge.refining import Refining


@dataclass
class StillEdge:
    """Implements `ptychostream.hpc_agent.scan_work.LiveEdge`."""

    live: str | None = ""
    previous: str | None = ""
    saves: bool = False
    doses: EdgeDose = field(default_factory=EdgeDose)
    refines: Refining = field(default_factory=Refining)

    def live_model(self) -> str | None:
        return self.live

    def previous_model(self) -> str | None:
        return self.previous

    def saves_canvases(self) -> bool:
        return self.saves

    def dose(self) -> EdgeDose:
        return self.doses

    def refining(self) -> Refining:
        return self.refines
