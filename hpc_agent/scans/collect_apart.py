"""Collects a scan in another process, which is ended when it makes no progress.

Damage that libhdf5 does not expect can crash the process, or hold the interpreter's lock for ever.
"""

from __future__ import annotations

import math
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ptychostream.errors import AgentError
from ptychostream.hpc_agent.running.runner import STEPS_MODULE
from ptychostream.hpc_agent.running.runner_process import (
    ProgressFile,
    StepJob,
    prepare,
    refused,
    run_job,
    start_plain,
)
from ptychostream.hpc_agent.scans.collect import Collected, CollectSettings, ScanEvent, file_of, options_of
from ptychostream.hpc_agent.scans.scan_checks import CollectError, FrameStatistics, ScanFault
from ptychostream.processes.program import GroupLeader


def collect_apart(
    event: ScanEvent,
    settings: CollectSettings,
    stop: threading.Event,
    start: Callable[[StepJob], GroupLeader] = start_plain,
    folder: Path | None = None,
) -> Collected:
    """As `ptychostream.hpc_agent.scans.collect.collect`, in a child that `start` starts; `stop` ends it.

    The child's files are in a new folder in `folder` (None: the system's folder for temporary files).

    Raises
    ------
    CollectError
        Also, as UNREADABLE, where the child crashed or made no progress for `timeout_s + silence_s`.
    AgentError, DiskFullError
        The child cannot be started.
    """
    where = str(file_of(event, settings))
    heard = time.monotonic()
    patience_s = settings.timeout_s + settings.silence_s

    def hear(_: dict[str, Any]) -> None:
        nonlocal heard
        heard = time.monotonic()

    def why_stop() -> str:
        if stop.is_set():
            return "was given up"
        return f"was silent for {patience_s:.0f} s" if time.monotonic() - heard > patience_s else ""

    with _temporary_folder(folder) as own:
        job = StepJob(STEPS_MODULE, "collect", str(own / "step"), math.inf)
        prepare(job, {"event": asdict(event), "settings": settings.model_dump(mode="json")})
        try:
            found = run_job(job, why_stop, ProgressFile(job.progress, hear).look, start)
        except AgentError as error:
            raise CollectError(
                ScanFault.UNREADABLE,
                f"it could not be read: {error.what}",
                where=where,
                remedy="the file is damaged where HDF5 does not expect it, or its disk does not answer; copy it again",
            ) from error
    if "fault" in found:
        fault = ScanFault(found["fault"])
        raise CollectError(fault, found["what"], where=found["where"], remedy=found["remedy"])
    statistics = FrameStatistics(**found["statistics"])
    return Collected(Path(found["path"]), options_of(event, settings), found["scan_id"], statistics)


@contextmanager
def _temporary_folder(beside: Path | None) -> Iterator[Path]:
    """A new folder that is removed in the end. Raises AgentError, DiskFullError."""
    try:
        if beside is not None:
            beside.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix="ptychostream-collect-", dir=beside))
    except OSError as error:
        where = str(beside or tempfile.gettempdir())
        what = "no folder can be made for the child that reads a scan"
        raise refused(where, what, "check its permissions", error) from error
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
