"""The policy's state between the threads that ask it and the journal that keeps it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import asdict

from ptychostream.hpc_agent.journal.journal import Journal, StepState
from ptychostream.hpc_agent.journal.policy import Event, Mode, Plan, PolicySettings, step


class PolicyKeeper:
    """Steps the policy, one event at a time, and journals what it decides. Any thread.

    Parameters
    ----------
    journal
        Keeps the state.
    settings
        The policy's settings now, operators' switches included.
    report
        Told every reason, for people.
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
        """Take an event that belongs to no scan."""
        with self._lock:
            now = time.time()
            decision = step(self._journal.policy(), event, now, self._settings())
            self._journal.keep_policy(decision.state, decision.reason, now)
        self._report(decision.reason)
        return decision.plan

    def decide(self, scan: str, name: str, event: Event) -> tuple[Plan, str]:
        """What is to be done with a scan, and why: decided once, journalled as its step `name`."""
        with self._lock:
            known = self._journal.steps(scan).get(name)
            if known is not None and known.state is StepState.DONE:
                return Plan(**known.result), known.message
            now = time.time()
            decision = step(self._journal.policy(), event, now, self._settings())
            self._journal.decide(scan, name, decision.state, asdict(decision.plan), decision.reason, now)
        self._report(f"scan {scan}: {decision.reason}")
        return decision.plan, decision.reason
