"""Who uses the processor, for the message of a test that waited in vain: reads /proc twice, a second apart."""

from __future__ import annotations

import os
import time
from pathlib import Path

_POLICIES = {"0": "", "1": ", FIFO", "2": ", round robin", "3": ", batch", "5": ", idle"}
_MOST = 8


def busy_threads(for_s: float = 1.0) -> str:
    """The load, and the threads with the most processor time in `for_s`, one a line; empty where there is no /proc."""
    if not Path("/proc/self/task").exists():
        return ""
    before = _times()
    time.sleep(for_s)
    used = {thread: now - before.get(thread, 0.0) for thread, now in _times().items()}
    most = sorted((seconds, thread) for thread, seconds in used.items() if seconds > 0)[: -_MOST - 1 : -1]
    load = " ".join(f"{one:.1f}" for one in os.getloadavg())
    return "\n".join([f"load {load}; busiest threads:", *(f"  {s / for_s:4.0%} {_name(*who)}" for s, who in most)])


def _times() -> dict[tuple[str, str], float]:
    """Processor seconds of every thread, by process and thread."""
    ticks = os.sysconf("SC_CLK_TCK")
    found: dict[tuple[str, str], float] = {}
    for task in Path("/proc").glob("[0-9]*/task/*"):
        who = task.parts[2], task.name
        try:
            fields = _stat(*who)
        except OSError:
            continue  # it has ended
        found[who] = (int(fields[11]) + int(fields[12])) / ticks
    return found


def _stat(process: str, thread: str) -> list[str]:
    """Fields of a thread's `stat` after its name, proc(5)."""
    return Path(f"/proc/{process}/task/{thread}/stat").read_text("utf-8", "replace").rpartition(")")[2].split()


def _name(process: str, thread: str) -> str:
    try:
        policy = _POLICIES.get(_stat(process, thread)[38], "")
        name = Path(f"/proc/{process}/task/{thread}/comm").read_text("utf-8", "replace").strip()
        words = Path(f"/proc/{process}/cmdline").read_text("utf-8", "replace").replace("\0", " ")
    except OSError:
        return f"{process}, which has ended"
    return f"{name}{policy} of {process} {words[:100]}"
