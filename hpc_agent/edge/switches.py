"""The switches that operators set at the edge for the agent."""

from __future__ import annotations

from dataclasses import dataclass, field

from ptychostream.hpc_agent.journal.policy import PolicySettings


@dataclass(frozen=True)
class Switches:
    """Whether the agent may work, and the policy's settings."""

    enabled: bool = True
    policy: PolicySettings = field(default_factory=PolicySettings)
