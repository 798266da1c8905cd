"""Steps on a real Slurm of one node: `make test-slurm`."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from epics_env import wait_until
from folders import HELPERS
from slurm_node import SlurmNode, slurm_node
from still_edge import StillEdge

from ptychostream.errors import AgentError, TrainingError
from ptychostream.hpc_agent.disk_room import DiskRoom
from ptychostream.hpc_agent.journal.journal import Journal
from ptychostream.hpc_agent.journal.policy import PolicySettings
from ptychostream.hpc_agent.journal.policy_keeper import PolicyKeeper
from ptychostream.hpc_agent.running.runner import RunnerSettings, StepRunner, make_runner
from ptychostream.hpc_agent.scan_work import ScanWork
from ptychostream.hpc_agent.scans.collect import Collected
from ptychostream.hpc_agent.scans.scan_checks import FrameStatistics
from ptychostream.hpc_agent.work_settings import WorkSettings
from ptychostream.scans.scan_files import ScanOptions

pytestmark = pytest.mark.slurm
SLURM = {
    "provider": "slurm",
    "partition": "test",
    "walltime": "00:10:00",
    "exclusive": False,
    "cores": 1,
    "address": "127.0.0.1",
    "status_s": 2.0,
    "heartbeat_s": 8,
}
Start = Callable[..., StepRunner]


@pytest.fixture(scope="module")
def node() -> Iterator[SlurmNode]:
    with slurm_node() as node:
        yield node


@pytest.fixture
def start(node: SlurmNode, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Start]:
    monkeypatch.setenv("PYTHONPATH", str(HELPERS))
    for name, value in node.environment.items():
        monkeypatch.setenv(name, value)
    running: list[StepRunner] = []

    def make(**parsl: Any) -> StepRunner:
        values = {"kind": "parsl", "module": "scripted_steps", "parsl": {**SLURM, **parsl}}
        running.append(make_runner(RunnerSettings.model_validate(values), tmp_path))
        return running[-1]

    yield make
    for runner in running:
        runner.close()
    wait_until(lambda: not node.jobs(), 30, lambda: f"jobs that are left: {node.jobs()}")


def test_steps_run_in_a_job_and_say_what_they_have_to_say(start: Start) -> None:
    runner = start()
    seen: list[Any] = []
    first = runner.submit("label", {"key": "1"}, seen.append).result(60)
    second = runner.submit("judge", {"key": "1"}).result(60)
    assert first["environment"]["SLURM_JOB_ID"] == second["environment"]["SLURM_JOB_ID"]
    assert first["arguments"] == {"key": "1", "nice": 0} and seen[-1] == {"epoch": 2}
    with pytest.raises(TrainingError, match="it cannot be done"):
        runner.submit("train", {"key": "1", "script": {"error": "TrainingError"}}).result(60)


def test_a_cancelled_step_ends_on_its_node(start: Start, tmp_path: Path) -> None:
    future = start().submit("train", {"key": "1", "script": {"sleep": 600, "pids": str(tmp_path / "pids")}})
    wait_until(lambda: (tmp_path / "pids").exists(), 60, "the step begins")
    future.cancel()
    with pytest.raises(AgentError, match="was given up"):
        future.result(60)


def test_a_job_that_slurm_refuses_is_an_error_and_the_next_may_do_better(start: Start, tmp_path: Path) -> None:
    runner = start(partition="no-such")
    with pytest.raises(AgentError, match="invalid partition specified: no-such"):
        runner.submit("label", {"key": "1"}).result(60)
    with pytest.raises(AgentError, match="invalid partition specified: no-such"):  # by a Parsl that was started anew
        runner.submit("label", {"key": "1"}).result(60)


def test_a_walltime_kill_is_tried_again_in_another_job(node: SlurmNode, start: Start, tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.sqlite")
    said: list[str] = []
    settings = WorkSettings(
        tmp_path,
        reconstruct={"script": {"sleep": 600, "once": str(tmp_path / "once"), "pids": str(tmp_path / "pids")}},
    )
    work = ScanWork(
        journal,
        start(),
        NoModels(),
        settings,
        collect=lambda event: Collected(Path("s.h5"), ScanOptions(), event.scan_id, FrameStatistics(1, 0, 0, 0, 1.0)),
        edge=StillEdge(),
        policy=PolicyKeeper(journal, PolicySettings, said.append),
        room=DiskRoom(tmp_path),
        report=said.append,
        on_progress=lambda _: None,
    )
    journal.enter("1", {"scan_id": "1"}, time.time())
    thread = threading.Thread(target=work.work, args=(journal.open_scans()[0], threading.Event()))
    thread.start()
    wait_until(lambda: (tmp_path / "pids").exists(), 60, "the step begins")
    (job,) = node.jobs()
    node.run("scontrol", "update", f"JobId={job}", "EndTime=now+1")  # Slurm's shortest walltime is a minute
    thread.join(100)
    assert node.state(job) == "TIMEOUT"
    outcome = journal.scans()[0].outcome
    assert outcome.startswith("trained on"), (outcome, said)
    steps = journal.steps("1")
    assert {name: steps[name].attempts for name in ("reconstruct", "label", "train")} == {
        "reconstruct": 2,
        "label": 1,
        "train": 1,
    }
    done = json.loads((tmp_path / "scans/1/reconstruct-2/result.json").read_text())
    assert done["environment"]["SLURM_JOB_ID"] != job


class NoModels:
    """An empty store."""

    def find(self, _: str) -> None:
        return None
