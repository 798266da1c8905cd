"""`collect` as a step: a damaged file that crashes HDF5 ends this process and not the agent."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

from ptychostream.hpc_agent.scans.collect import CollectSettings, ScanEvent, collect
from ptychostream.hpc_agent.scans.scan_checks import CollectError
from ptychostream.processes.bounded import limit_memory, share_of_memory

_SHARE = 0.5
"""Share of the machine's memory that the step may take."""


def collect_step(
    *,
    event: Mapping[str, Any],
    settings: Mapping[str, Any],
    progress: Callable[[dict[str, Any]], None] = lambda _: None,
) -> dict[str, Any]:
    """Collect the scan of an event; `progress` is called with the number of frames checked so far.

    Returns
    -------
    `path`, `scan_id` and `statistics` of what was collected; or `fault`, `what`, `where` and `remedy`.
    """
    limit_memory(share_of_memory(_SHARE))
    try:
        found = collect(
            ScanEvent(**event),
            CollectSettings.model_validate(settings),
            on_frames=lambda frames: progress({"frames": frames}),
        )
    except CollectError as error:
        return {"fault": error.fault.value, "what": error.what, "where": error.where, "remedy": error.remedy}
    return {"path": str(found.path), "scan_id": found.scan_id, "statistics": asdict(found.statistics)}
