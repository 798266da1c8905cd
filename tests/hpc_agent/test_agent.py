"""The agent's loop on a journal of its own, with steps, edge and pushes that the test scripts."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from ptychostream.errors import AgentError, DiskFullError, PtychostreamError, TrainingError
from ptychostream.hpc_agent.agent import Agent
from ptychostream.hpc_agent.disk_room import DiskRoom
from ptychostream.hpc_agent.edge.judge_dose import EdgeDose
from ptychostream.hpc_agent.edge.refining import Refining
from ptychostream.hpc_agent.edge.switches import Switches
from ptychostream.hpc_agent.journal.journal import Journal
from ptychostream.hpc_agent.journal.policy import Mode, PolicySettings
from ptychostream.hpc_agent.journal.policy_keeper import PolicyKeeper
from ptychostream.hpc_agent.running.runner_process import Progress
from ptychostream.hpc_agent.scan_work import ScanWork
from ptychostream.hpc_agent.scans.collect import Collected, ScanEvent
from ptychostream.hpc_agent.scans.scan_checks import CollectError, FrameStatistics, ScanFault
from ptychostream.hpc_agent.work_settings import WorkSettings
from ptychostream.scans.scan_files import ScanOptions

Result = dict[str, Any]
STATISTICS = FrameStatistics.__new__(FrameStatistics)


@dataclass(frozen=True)
class Files:
    path: Path
    checkpoint: Path


@dataclass
class World:
    """Everything around the agent."""

    switches_now: Switches = field(
        default_factory=lambda: Switches(policy=PolicySettings(tolerance=0.2, scans=2, interval_s=1000.0))
    )
    live: str | None = ""
    ssim: float = 0.9
    diverged: bool = False
    refuses: int = 0
    failures: dict[str, list[Exception]] = field(default_factory=dict)
    holds: dict[str, threading.Event] = field(default_factory=dict)
    calls: list[tuple[str, str]] = field(default_factory=list)
    pushes: list[str] = field(default_factory=list)
    found: list[str] = field(default_factory=list)
    said: list[str] = field(default_factory=list)
    state: str = ""
    trained: int = 0
    bad_scans: dict[str, ScanFault] = field(default_factory=dict)

    # the runner

    def submit(self, step: str, arguments: Result, on_progress: Progress | None = None) -> Future[Result]:
        future: Future[Result] = Future()
        self.calls.append((step, arguments["key"]))
        held = self.holds.get(step)
        if held is None:
            self._end(future, step, on_progress)
        else:
            threading.Thread(target=lambda: (held.wait(30), self._end(future, step, on_progress)), daemon=True).start()
        return future

    def _end(self, future: Future[Result], step: str, on_progress: Progress | None) -> None:
        if not future.set_running_or_notify_cancel():
            return
        if self.failures.get(step):
            future.set_exception(self.failures[step].pop(0))
            return
        if on_progress is not None:
            on_progress({"epoch": 1, "epochs": 1})
        self.trained += step == "train"
        future.set_result(
            {
                "reconstruct": {"reconstruction": "r.h5", "diverged": self.diverged, "r_factor": 0.1},
                "label": {"pairs": 10},
                "judge": {"ssim_1px": self.ssim},
                "train": {"sha256": f"model{self.trained}"},
            }[step]
        )

    # the store

    def find(self, sha256: str) -> Files | None:
        self.found.append(sha256)
        return Files(Path(f"{sha256}.onnx"), Path(f"{sha256}.pt")) if sha256.startswith("model") else None

    # the edge

    def switches(self) -> Switches:
        return self.switches_now

    def live_model(self) -> str | None:
        return self.live

    def previous_model(self) -> str | None:
        return None

    def saves_canvases(self) -> bool:
        return False

    def dose(self) -> EdgeDose:
        return EdgeDose()

    def refining(self) -> Refining:
        return Refining()

    def report(self, **values: Any) -> None:
        self.state = values.get("State", self.state)
        if "Message" in values:
            self.said.append(values["Message"])

    def push(self, sha256: str) -> None:
        if self.refuses:
            self.refuses -= 1
            raise AgentError("the edge does not answer", where="edge", remedy="wait")
        self.pushes.append(sha256)
        self.live = sha256

    def collect(self, event: ScanEvent) -> Collected:
        if event.scan_id in self.bad_scans:
            raise CollectError(self.bad_scans[event.scan_id], "no good", where=event.file, remedy="scan again")
        return Collected(Path(event.file), ScanOptions(), event.scan_id, STATISTICS)


class Running:
    """An agent in a thread."""

    def __init__(self, world: World, folder: Path) -> None:
        self.world = world
        self.room = DiskRoom(folder, again_s=0.1)
        self.journal = Journal(folder / "journal.sqlite", patience=self.room)
        keeper = PolicyKeeper(self.journal, lambda: world.switches().policy, world.said.append)
        work = ScanWork(
            self.journal,
            world,
            world,
            WorkSettings(folder),
            collect=world.collect,
            edge=world,
            policy=keeper,
            room=self.room,
            report=world.said.append,
            on_progress=lambda _: None,
        )
        self.agent = Agent(self.journal, keeper, work, world, world.push, lambda event: event.scan_id, self.room)
        self.error: Exception | None = None
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self) -> None:
        try:
            self.agent.run()
        except PtychostreamError as error:
            self.error = error

    def scan(self, name: str) -> None:
        self.agent.scan_completed(ScanEvent(name, f"{name}.h5"))

    def until(self, true: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 30
        while not true():
            assert time.monotonic() < deadline and self.error is None, (self.error, self.world.said, self.world.calls)
            time.sleep(0.01)

    def outcomes(self) -> dict[str, str]:
        return {scan.key: scan.outcome for scan in self.journal.scans()}

    def ended(self, *names: str) -> None:
        self.until(lambda: all(self.outcomes().get(name) for name in names))
        self.until(lambda: not self.journal.waiting_push)

    def stop(self) -> None:
        self.agent.stop()
        self.thread.join(30)
        assert not self.thread.is_alive()


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def start(world: World, tmp_path: Path) -> Iterator[Callable[[], Running]]:
    running: list[Running] = []

    def one() -> Running:
        running.append(Running(world, tmp_path))
        return running[-1]

    yield one
    for each in running:
        each.stop()


Start = Callable[[], Running]


def test_the_loop_closes_and_comes_to_rest(world: World, start: Start) -> None:
    agent = start()
    agent.scan("1")
    agent.ended("1")
    agent.until(lambda: agent.journal.policy().mode is Mode.ACTIVE)
    assert world.calls == [("reconstruct", "1"), ("label", "1"), ("train", "1")]
    assert world.pushes == ["model1"]
    world.ssim = 0.5
    agent.scan("2")
    agent.ended("2")
    assert world.calls[3:] == [("reconstruct", "2"), ("judge", "2"), ("label", "2"), ("train", "2")]
    assert world.pushes == ["model1", "model2"]
    world.ssim = 0.95
    for name in ("3", "4", "5"):
        agent.scan(name)
        agent.ended(name)
    assert world.calls[7:] == [("reconstruct", "3"), ("judge", "3"), ("reconstruct", "4"), ("judge", "4")]
    assert agent.outcomes()["5"].startswith("passed over: suspended")
    agent.until(lambda: world.state == "Suspended")
    assert [state for _, state, _ in agent.journal.transitions()] == ["Active", "Suspended"]


def test_a_scan_is_entered_and_its_model_read_once(world: World, start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    agent = start()
    agent.scan("1")
    agent.ended("1")
    agent.until(lambda: agent.journal.policy().mode is Mode.ACTIVE)
    entered: list[str] = []
    enter = Journal.enter
    monkeypatch.setattr(Journal, "enter", lambda self, key, *rest: (entered.append(key), enter(self, key, *rest))[1])
    world.found.clear()
    world.ssim = 0.5
    agent.scan("2")
    agent.ended("2")
    assert ("judge", "2") in world.calls and ("train", "2") in world.calls
    assert entered == ["2"] and world.found == ["model1"], "judged, and the start of the training"


def test_a_scan_told_twice_is_worked_on_once(world: World, start: Start) -> None:
    agent = start()
    for _ in range(3):
        agent.scan("1")
    agent.ended("1")
    agent.scan("1")
    agent.scan("2")
    agent.ended("2")
    assert world.calls.count(("reconstruct", "1")) == world.calls.count(("train", "1")) == 1


@pytest.mark.slow
@pytest.mark.parametrize("step", ["reconstruct", "label", "train"])
def test_what_was_done_is_not_done_again_after_a_restart(world: World, start: Start, step: str) -> None:
    world.holds[step] = threading.Event()
    agent = start()
    agent.scan("1")
    agent.until(lambda: (step, "1") in world.calls)
    agent.stop()
    assert agent.outcomes() == {"1": ""}
    world.holds.clear()
    again = start()
    again.ended("1")
    once = [call for call in world.calls if call[0] != step]
    assert sorted(once) == sorted({("reconstruct", "1"), ("label", "1"), ("train", "1")} - {(step, "1")})
    assert world.pushes == ["model1"]


def test_an_edge_that_is_away_gets_the_newest_model_when_it_returns(world: World, start: Start) -> None:
    world.refuses = 10**6
    agent = start()
    for name in ("1", "2"):
        agent.scan(name)
        agent.until(lambda name=name: bool(agent.outcomes().get(name)))
    assert world.pushes == [] and agent.journal.waiting_push == "model2"
    assert agent.journal.policy().mode is Mode.BOOTSTRAP
    agent.stop()
    world.refuses = 0
    again = start()
    again.until(lambda: world.pushes == ["model2"])
    again.until(lambda: again.journal.policy().mode is Mode.ACTIVE)


def test_a_step_that_was_killed_is_tried_again_but_not_for_ever(world: World, start: Start) -> None:
    world.failures = {"reconstruct": [AgentError("walltime", where="node")] * 2}
    agent = start()
    agent.scan("1")
    agent.ended("1")
    assert world.calls.count(("reconstruct", "1")) == 3 and world.pushes == ["model1"]
    world.failures = {"train": [AgentError("walltime", where="node")] * 3}
    world.ssim = 0.1
    agent.scan("2")
    agent.ended("2")
    assert world.calls.count(("train", "2")) == 3
    assert agent.outcomes()["2"] == "failed: node: walltime"
    agent.scan("3")
    agent.ended("3")
    assert world.pushes == ["model1", "model2"]


def test_a_loss_that_is_not_finite_ends_the_scan_at_once(world: World, start: Start) -> None:
    world.failures = {"train": [TrainingError("the loss is not finite", where="training")]}
    agent = start()
    agent.scan("1")
    agent.ended("1")
    assert "not finite" in agent.outcomes()["1"] and world.pushes == []
    assert world.calls.count(("train", "1")) == 1
    agent.scan("2")
    agent.ended("2")
    assert world.pushes == ["model1"]


def test_a_full_disk_in_mid_corpus_holds_the_work_back_until_there_is_room(world: World, start: Start) -> None:
    agent = start()
    agent.scan("1")
    agent.ended("1")
    agent.until(lambda: agent.journal.policy().mode is Mode.ACTIVE)
    world.ssim = 0.1
    full = DiskFullError("cannot be written: No space left on device", where="corpus/2.h5")
    world.failures = {"label": [full] * 6}
    agent.scan("2")
    agent.until(lambda: world.state == "Fault" and any("No space left" in said for said in world.said))
    agent.ended("2")
    agent.until(lambda: world.state == "Active")
    assert agent.outcomes()["2"].startswith("trained on") and world.pushes == ["model1", "model2"]
    assert world.calls.count(("reconstruct", "2")) == 1 and world.calls.count(("label", "2")) == 7
    assert agent.journal.steps("2")["label"].attempts == 1, "a full disk is no fault of the step"


def test_a_diverged_reconstruction_makes_no_labels(world: World, start: Start) -> None:
    world.diverged = True
    agent = start()
    agent.scan("1")
    agent.ended("1")
    assert world.calls == [("reconstruct", "1")]
    assert "diverged" in agent.outcomes()["1"]


@pytest.mark.parametrize("fault", list(ScanFault))
def test_a_bad_scan_is_named_and_passed_over(world: World, start: Start, fault: ScanFault) -> None:
    world.bad_scans = {"1": fault}
    agent = start()
    agent.scan("1")
    agent.scan("2")
    agent.ended("1", "2")
    assert agent.outcomes()["1"] == "failed: 1.h5: no good (scan again)"
    assert ("reconstruct", "1") not in world.calls and world.pushes == ["model1"]


def test_a_model_that_the_store_has_not_is_replaced(world: World, start: Start) -> None:
    agent = start()
    agent.scan("1")
    agent.ended("1")
    agent.until(lambda: agent.journal.policy().mode is Mode.ACTIVE)
    world.live = "somebody else's"
    agent.scan("2")
    agent.ended("2")
    assert ("judge", "2") not in world.calls
    assert world.pushes == ["model1", "model2"]


@pytest.mark.slow
def test_an_edge_without_a_model_is_bootstrapped_again(world: World, start: Start) -> None:
    agent = start()
    agent.scan("1")
    agent.ended("1")
    agent.until(lambda: agent.journal.policy().mode is Mode.ACTIVE)
    world.live = None  # away: nothing follows from that
    agent.scan("2")
    agent.ended("2")
    world.live = ""
    agent.until(lambda: agent.journal.policy().mode is Mode.BOOTSTRAP)


@pytest.mark.slow
def test_the_operator_pauses_and_commands(world: World, start: Start) -> None:
    world.switches_now = Switches(enabled=False, policy=world.switches_now.policy)
    agent = start()
    agent.until(lambda: world.state == "Paused")
    agent.scan("1")
    agent.ended("1")
    assert world.calls == [] and "paused" in agent.outcomes()["1"]
    agent.agent.command("retrain")
    agent.until(lambda: world.pushes == ["model1"])
    world.switches_now = Switches(policy=world.switches_now.policy)
    agent.until(lambda: world.state == "Active")
    agent.agent.command("reconstruct")
    agent.until(lambda: world.calls[-1] == ("judge", "1"))
    assert [step for step, _ in world.calls] == ["reconstruct", "label", "train", "reconstruct", "judge"]


def test_a_command_before_any_scan(world: World, start: Start) -> None:
    agent = start()
    agent.agent.command("retrain")
    agent.until(lambda: "retrain: there is no scan yet" in world.said)
