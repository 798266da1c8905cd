"""Finds the refined result of a scan that the edge saved, and waits until the edge has refined it."""

from __future__ import annotations

import glob
import threading
import time
from collections.abc import Callable
from pathlib import Path

from ptychostream.hpc_agent.edge.refining import Refining
from ptychostream.refine.status import RefineStatus
from ptychostream.scans.phase_file import file_stem

_LOOK_S = 0.1
_LAG_S = 3.0
"""So late records and a shared folder may show what is there."""


def find_refined(folder: Path, scan_id: str) -> Path | None:
    """The newest refined result of a scan in the edge's folder, by its name; None: there is none.

    The edge names it after scan and run. Whether it is of this scan, the file itself says; it is read where the scan is
    reconstructed, in a process of its own.
    """
    stem = file_stem(scan_id)
    named = [
        path
        for path in folder.glob(f"{glob.escape(stem)}_*.h5")
        if path.is_file() and path.stem.removeprefix(f"{stem}_").isdigit()
    ]
    return max(named, key=lambda path: path.stat().st_mtime_ns, default=None)


def await_refined(
    folder: Path, scan_id: str, refining: Callable[[], Refining], wait_s: float, stop: threading.Event
) -> tuple[Path | None, str]:
    """The refined result of a scan once the edge has refined it; or None, and why there is none.

    It waits for at most `wait_s`, and while the edge refines this scan; for `_LAG_S` of them where the edge refines
    another scan, or has converged and the file is not seen yet.
    """
    began = time.monotonic()
    while True:
        now = refining()
        mine = now.is_of(scan_id)
        busy = mine and now.status == RefineStatus.REFINES
        if not busy and (found := find_refined(folder, scan_id)) is not None:
            return found, ""
        if now.status == RefineStatus.DISABLED:
            return None, "the edge does not refine"
        if mine and now.status == RefineStatus.STOPPED:
            return None, "the edge stopped to refine this scan"
        waited_s = time.monotonic() - began
        left_s = (wait_s if busy else min(wait_s, _LAG_S)) - waited_s
        if left_s <= 0 or stop.wait(min(_LOOK_S, left_s)):
            break
    if busy:
        return None, f"the edge still refined this scan after {waited_s:.0f} s"
    if mine and now.status == RefineStatus.CONVERGED:
        return None, f"the edge has refined this scan, but there is no file of it in {folder}"
    return None, "the edge has not refined this scan"
