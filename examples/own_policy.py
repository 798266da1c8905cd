"""A policy of one's own: the standard one, but nothing is trained between 8 and 20 o'clock UTC.

    PYTHONPATH=examples ptychostream agent --config agent.toml

with this in agent.toml:

    [policy]
    own = "own_policy:step"
"""

from dataclasses import replace
from datetime import datetime, timezone

from ptychostream.hpc_agent.journal import policy
from ptychostream.hpc_agent.journal.policy import Decision, Event, PolicySettings, PolicyState


def step(state: PolicyState, event: Event, now_s: float, settings: PolicySettings) -> Decision:
    """A pure function of state, event and POSIX time, as `ptychostream.hpc_agent.journal.policy.step` is."""
    decision = policy.step(state, event, now_s, settings)
    hour = datetime.fromtimestamp(now_s, timezone.utc).hour
    if decision.plan.train and 8 <= hour < 20:
        plan = replace(decision.plan, train=False)
        return replace(decision, plan=plan, reason=f"{decision.reason}; no training by day")
    return decision
