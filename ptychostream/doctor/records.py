"""The records of an IOC that runs already: what it waits for, its agent, its autosave."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from p4p import Value
from p4p.client.thread import Context

from ptychostream.doctor.finding import Finding, fail, ok, warn

NAMES = (
    "Ready_RBV", "StatusMessage_RBV", "ModelState_RBV", "Agent:Lost_RBV", "Agent:Lease_RBV", "Agent:State",
    "AutosaveStatus_RBV", "AutosaveMessage_RBV", "PositionsCount_RBV",
)  # fmt: skip


def check_records(prefix: str, records: Mapping[str, Any], source: str) -> Iterator[Finding]:
    """The findings of what `read_records` gave. Empty records: no IOC runs."""
    if not records:
        yield ok("IOC", f"none serves {prefix} now")
        return
    status = str(records.get("StatusMessage_RBV", ""))
    if records.get("Ready_RBV"):
        yield ok("IOC", f"{prefix} is ready: {status}")
    else:
        yield warn("IOC", f"{prefix} is not ready: {status}", "see what it waits for")
    if source == "waveform" and not records.get("PositionsCount_RBV"):
        yield warn("positions", "no position is written to PositionsX and PositionsY", "write them before the scan")
    holder, state = records.get("Agent:Lease_RBV", ""), records.get("Agent:State", "")
    if records.get("Agent:Lost_RBV"):
        what = f"the agent has gone: its heartbeat stands still{f', {holder} has the lease' if holder else ''}"
        yield fail("agent", what, f"start ptychostream agent for {prefix}, or look at its log")
    elif not holder:
        yield warn(
            "agent", "no agent has the lease", f"start ptychostream agent for {prefix}, if models are to be learnt"
        )
    elif state == "Fault":
        yield fail("agent", f"{holder} reports a fault", f"read {prefix}Agent:Message")
    else:
        yield ok("agent", f"{holder} has the lease: {state}")
    if records.get("AutosaveStatus_RBV") not in (None, "Fine"):
        yield fail("autosave", "the IOC cannot save its setpoints", "look at the folder of --autosave")
    if records.get("AutosaveMessage_RBV"):
        what = f"saved values were not restored: {records['AutosaveMessage_RBV']}"
        yield warn("autosave", what, "set those setpoints again; the file is written anew")


def read_records(prefix: str, timeout_s: float) -> dict[str, Any]:
    """Values by name without prefix, choices as texts; empty where no IOC answers."""
    with Context("pva", nt=False) as context:
        if not isinstance(context.get(f"{prefix}HEARTBEAT", timeout=timeout_s, throw=False), Value):
            return {}
        answers = context.get([f"{prefix}{name}" for name in NAMES], timeout=timeout_s, throw=False)
    return {name: _plain(answer) for name, answer in zip(NAMES, answers, strict=True) if isinstance(answer, Value)}


def _plain(answer: Value) -> Any:
    value = answer["value"]
    if not isinstance(value, Value):
        return value
    text = value["choices"][value["index"]]
    return value["index"] if text in ("No", "Lost", "Not ready", "Ready") else text
