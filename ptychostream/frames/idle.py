"""Whether a value that says if a scan runs, or is complete, says so: numbers, flags and words that beamlines use."""

from __future__ import annotations

IDLE_WORDS = frozenset({"", "0", "idle", "done", "no", "off", "false", "inactive", "complete", "finished"})


def is_idle(value: object) -> bool:
    """True for what is not there, 0, and texts such as "Idle" or "Done"."""
    if value is None:
        return True
    if isinstance(value, str):
        return value.strip().lower() in IDLE_WORDS
    return not value
