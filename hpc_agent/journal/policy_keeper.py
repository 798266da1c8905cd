"""The policy for several threads, with its state in the journal."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import asdict

from ptychostream.config import load_object
from ptychostream.hpc_agent.journal.journal import Journal, StepState
from ptychostream.hpc_agent.journal.policy import Decision, Event, Mode, Plan, PolicySettings, step


class PolicyKeeper:
    """Applies the policy to one event at a time and writes its decisions to the journal. Any thread.

    Parameters
    ----------
    journal
        Holds the state.
    settings
        Gives the policy's settings, with the operators' switches.
    report
        Called with every reason, for people.
    """

    def __init__(self, journal: Journal, settings: Callable[[], PolicySettings], report: Callable[[str], None]) -> None:
        self._journal = journal
        self._settings = settings
        self._report = report
        self._lock = threading.Lock()

    @property
    def mode(self) -> Mode:
        return self._journal.policy().mode

    def tell(self, event: Event) -> Plan:
        """Apply an event that belongs to no scan; return what is done now."""
        with self._lock:
            now = time.time()
            decision = self._step(event, now)
            self._journal.keep_policy(decision.state, decision.reason, now)
        self._report(decision.reason)
        return decision.plan

    def decide(self, scan: str, name: str, event: Event) -> tuple[Plan, str]:
        """Decide once what is done with a scan, and why; the decision is written as the scan's step `name`."""
        with self._lock:
            known = self._journal.steps(scan).get(name)
            if known is not None and known.state is StepState.DONE:
                return Plan(**known.result), known.message
            now = time.time()
            decision = self._step(event, now)
            self._journal.decide(scan, name, decision.state, asdict(decision.plan), decision.reason, now)
        self._report(f"scan {scan}: {decision.reason}")
        return decision.plan, decision.reason

    def _step(self, event: Event, now_s: float) -> Decision:
        settings = self._settings()
        decide = load_object(settings.own) if settings.own else step
        decision: Decision = decide(self._journal.policy(), event, now_s, settings)
        return decision
