"""The list of what an archiver appliance should keep, each with the name of its policy. No images."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from ptychostream.opi.database import Record

FAST, SLOW, SETPOINT = "ptychostreamFast", "ptychostreamSlow", "ptychostreamSetpoint"
POLICIES = {
    FAST: "what moves while a scan runs: monitored, at most once a second, kept a week at full rate",
    SLOW: "counters and states that change seldom: monitored, every change",
    SETPOINT: "what operators write: monitored, every change, kept for ever",
}
_FAST_GROUPS = frozenset({"timing", "stages", "health"})
_LONGEST_TEXT = 1024
HEAD = """# Made by `ptychostream generate`; do not edit. A channel and the name of its policy on each line.
# Define these in policies.py of the archiver appliance:
"""


def policy(record: Record) -> str:
    """The name of a record's policy; "" where it is not archived."""
    if record.type == "waveform" and (not record.is_text or int(record.fields["NELM"]) > _LONGEST_TEXT):
        return ""
    if record.name in ("TOD", "UPTIME", "HEARTBEAT", "Agent:Heartbeat"):
        return ""
    if record.is_setpoint:
        return SETPOINT
    return FAST if record.type in ("ai", "calc") or record.group in _FAST_GROUPS else SLOW


def _lines(records: Iterable[Record], prefix: str) -> Iterator[str]:
    for record in records:
        if name := policy(record):
            yield f"{prefix}{record.name} {name}"


def archive_list(records: Iterable[Record], prefix: str) -> str:
    """The list, with what each policy should do."""
    policies = "".join(f"#   {name}: {what}\n" for name, what in POLICIES.items())
    return f"{HEAD}{policies}" + "\n".join(_lines(records, prefix)) + "\n"
