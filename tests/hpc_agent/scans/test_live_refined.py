"""The agent waits for the edge's refined result as long as the edge refines this scan, and says why there is none."""

from __future__ import annotations

import os
import threading
from pathlib import Path

from ptychostream.hpc_agent.edge.refining import Refining
from ptychostream.hpc_agent.scans import live_refined
from ptychostream.hpc_agent.scans.live_refined import await_refined, find_refined
from ptychostream.refine.status import RefineStatus


def written(folder: Path, *names: str, first_s: float = 1000) -> None:
    folder.mkdir(exist_ok=True)
    for age, name in enumerate(names):
        (folder / name).write_bytes(b"x")
        os.utime(folder / name, (first_s + age, first_s + age))


def test_the_newest_file_of_the_scan_is_found(tmp_path: Path) -> None:
    folder = tmp_path / "refined"
    assert find_refined(folder, "s[1]") is None
    written(folder, "s_1_2.h5", "s_1_10.h5", "s_1_.h5", "s_1_x.h5", "s_12_3.h5", "s_1_5_7.h5", ".s_1_9.h5")
    assert find_refined(folder, "s[1") == folder / "s_1_10.h5"
    assert find_refined(folder, "s/12") == folder / "s_12_3.h5"
    assert find_refined(folder, "s") is None


def test_it_waits_while_the_edge_refines_this_scan(tmp_path: Path) -> None:
    folder = tmp_path / "refined"
    written(folder, "s_1.h5")  # of half of the scan: the refinement had converged in a pause
    states = [Refining(RefineStatus.REFINES, "s")] * 4 + [Refining(RefineStatus.CONVERGED, "s")] * 100
    looks: list[int] = []

    def refining() -> Refining:
        looks.append(1)
        if len(looks) == 5:
            written(folder, "s_2.h5", first_s=2000)
        return states[len(looks) - 1]

    assert await_refined(folder, "s", refining, 60.0, threading.Event()) == (folder / "s_2.h5", "")
    assert len(looks) == 5


def test_why_there_is_none(tmp_path: Path, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setattr(live_refined, "_LAG_S", 0.15)
    stop = threading.Event()
    for state, wait_s, why in (
        (Refining(RefineStatus.DISABLED), 60.0, "does not refine"),
        (Refining(RefineStatus.STOPPED, "s"), 60.0, "stopped"),
        (Refining(RefineStatus.REFINES, "s"), 0.2, "still refined"),
        (Refining(RefineStatus.REFINES, "other"), 60.0, "has not refined"),
        (Refining(RefineStatus.CONVERGED, "s"), 60.0, "no file of it"),
    ):
        found, reason = await_refined(tmp_path, "s", lambda state=state: state, wait_s, stop)  # type: ignore[misc]
        assert found is None and why in reason, (state, reason)
    stop.set()
    assert await_refined(tmp_path, "s", lambda: Refining(RefineStatus.REFINES, "s"), 60.0, stop)[0] is None


def test_a_long_name_is_known_by_what_its_record_holds() -> None:
    for name, held in (("a" * 39, "a" * 39), ("a" * 45, "a" * 36 + "..."), ("a" * 35 + "é" * 5, "a" * 35 + "...")):
        assert Refining(RefineStatus.REFINES, held).is_of(name)
        assert not Refining(RefineStatus.REFINES, held[:-1]).is_of(name)
    assert not Refining(RefineStatus.REFINES, "").is_of("")
