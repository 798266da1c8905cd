"""What operators set at the edge for the agent."""

from __future__ import annotations

from dataclasses import dataclass, field

from ptychostream.hpc_agent.journal.policy import PolicySettings


@dataclass(frozen=True)
class Switches:
    """What operators set at the edge."""

    enabled: bool = True
    policy: PolicySettings = field(default_factory=PolicySettings)
