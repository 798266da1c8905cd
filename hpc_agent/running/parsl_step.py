"""The function that Parsl's workers run for a step."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

STOP = "stop"
"""A file of this name in a step's folder asks the step to end."""


def run_on_node(job: dict[str, Any], sign: str, agent: str, orphan_s: float) -> dict[str, Any]:
    """Run a step in the worker on a node. Returns its result, or a PtychostreamError as `pack_error` packs it."""
    # Parsl may send the function without its module
    from pathlib import Path

    from ptychostream.errors import PtychostreamError
    from ptychostream.hpc_agent.running.parsl_step import ends_with_agent
    from ptychostream.hpc_agent.running.runner_process import StepJob, run_job
    from ptychostream.hpc_agent.running.step_errors import pack_error

    asked = StepJob(**job)
    try:
        return {"result": run_job(asked, ends_with_agent(Path(asked.folder), Path(sign), agent, orphan_s))}
    except PtychostreamError as error:
        return pack_error(error)


def ends_with_agent(folder: Path, sign: Path, agent: str, orphan_s: float) -> Callable[[], str]:
    """A function that says why a step must end: it was asked to, or its agent is gone or replaced. "": go on."""
    last: float | None = None
    heard = time.monotonic()

    def why() -> str:
        nonlocal last, heard
        if (folder / STOP).exists():
            return "was given up"
        with suppress(OSError):
            changed = sign.stat().st_mtime
            if sign.read_text(encoding="utf-8") != agent:
                return "was another agent's, which is not at work any more"
            if changed != last:
                last, heard = changed, time.monotonic()
        if time.monotonic() - heard > orphan_s:
            return f"saw no sign of its agent for {orphan_s:.0f} s"
        return ""

    return why
