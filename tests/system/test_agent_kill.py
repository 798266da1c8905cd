"""A real `ptychostream agent`, killed at every step: no scan lost, repeated or trained twice, no half model pushed."""

from __future__ import annotations

import contextlib
import json
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from epics_env import EpicsEnv, Process, wait_until
from folders import HELPERS
from ioc_helpers import wait_for
from sequencer_records import DATABASE

from ptychostream.hpc_agent.journal.journal import Journal
from ptychostream.hpc_agent.models.model_store import ModelStore
from ptychostream.scans.scan import Scan
from ptychostream.scans.scan_writer import write_scan

pytestmark = pytest.mark.server

P = "ak:"
CONFIGURATION = """
prefix = "ak:"
work = {work}
[watch]
complete_pv = "s:Complete"
id_pv = "s:ID"
file_pv = "s:File.VAL$"
settle_s = 2
[folder]
files = {files}
quiet_s = 0
[collect]
quiet_s = 0.1
timeout_s = 30
[policy]
scans = 100
[runner]
module = "quick_steps"
[steps]
reconstruct = {{ ledger = {ledger} }}
label = {{ ledger = {ledger} }}
train = {{ ledger = {ledger} }}
judge = {{ ledger = {ledger}, ssim = 0.1 }}
"""
STEPS = ("reconstruct", "judge", "label", "train")


class World:
    """An edge, a sequencer, and an agent that dies and comes back."""

    def __init__(self, folder: Path, env: EpicsEnv) -> None:
        self.env = env
        self.folder = folder
        self.ledger = folder / "ledger"
        self.scans = folder / "scans"
        self.work = folder / "work"
        for path in (self.ledger, self.scans):
            path.mkdir()
        paths = {"work": self.work, "files": self.scans / "{scan}.h5", "ledger": self.ledger}
        text = CONFIGURATION.format(**{name: json.dumps(str(path)) for name, path in paths.items()})
        (folder / "agent.toml").write_text(text)
        (folder / "scan.db").write_text(DATABASE)
        self.agent: Process | None = None
        self.outputs: list[str] = []
        self.edge: Process | None = None

    def edge_ioc(self, *arguments: str) -> Process:
        engine = ("--engine", "ONNXRuntime", "--threads", "1", "--engine-cache", str(self.folder / "cache"))
        edge = self.env.start_ioc("--prefix", P, *engine, *arguments, wait="up")
        wait_for(self.env, f"{P}ModelMessage_RBV", "no model loaded")
        return edge

    def start(self) -> None:
        command = (sys.executable, "-m", "ptychostream", "agent", "--config", str(self.folder / "agent.toml"))
        self.agent = self.env.start(*command, env={**self.env.env, "PYTHONPATH": str(HELPERS)})

    def end(self, number: int = signal.SIGKILL) -> int:
        assert self.agent is not None
        agent, self.agent = self.agent, None
        status = agent.stop(number, timeout=30)
        self.outputs.append(agent.output)
        agent.__exit__()
        return status

    def write(self, name: str) -> Path:
        counts = np.random.default_rng(1).poisson(5, (12, 16, 16)).astype(np.uint16)
        path = self.scans / f"{name}.h5"
        write_scan(path, Scan(name, counts, np.random.default_rng(2).normal(0, 1e-6, (12, 2)), 1e4, 1.0, 1e-4))
        return path

    def complete(self, name: str, write: bool = True) -> None:
        """A scan as the sequencer takes it; `write`: its file is there."""
        path = self.write(name) if write else self.scans / f"{name}.h5"
        self.env.caput("s:Complete", 0)
        self.env.caput("s:ID", name)
        self.env.caput("s:File.VAL$", str(path))
        self.env.caput("s:Complete", 1)

    def hold(self, step: str, scan: str) -> Callable[[], None]:
        """The step will wait; what is returned waits until it does, and lets the next one through."""
        held = self.ledger / f"hold-{step}-{scan}"
        held.touch()
        before = self.lines.count(f"{step} {scan} begins")

        def begun() -> None:
            self.until(lambda: self.lines.count(f"{step} {scan} begins") > before, f"{step} of {scan} begins")
            held.unlink()

        return begun

    @property
    def lines(self) -> list[str]:
        path = self.ledger / "lines"
        return path.read_text().splitlines() if path.exists() else []

    def journal(self, read: Callable[[Journal], Any]) -> Any:
        journal = Journal(self.work / "journal.sqlite")
        try:
            return read(journal)
        finally:
            journal.close()

    def outcomes(self) -> dict[str, str]:
        return {scan.key: scan.outcome for scan in self.journal(Journal.scans)}

    def done(self, *names: str) -> None:
        self.until(lambda: all(self.outcomes().get(name) for name in names), f"{names} are through")
        self.until(lambda: not self.journal(lambda journal: journal.waiting_push), "the model is pushed")

    def until(self, true: Callable[[], Any], what: str) -> None:
        wait_until(true, 60, lambda: f"{what}: {self.outcomes()}\n{self.lines}\n{self.agent and self.agent.output}")

    @property
    def live(self) -> str:
        return str(self.env.caget(f"{P}ModelSHA_RBV"))


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with EpicsEnv() as env:
        world = World(tmp_path, env)
        scans = (sys.executable, "-m", "pvxslibs.ioc", "-d", str(tmp_path / "scan.db"))
        models = tmp_path / "models"
        models.mkdir()
        with env.start(*scans, env=env.server_env()), world.edge_ioc("--models-dir", str(models)) as world.edge:
            try:
                yield world
            finally:
                if world.agent is not None:
                    world.end()


def test_killed_at_every_step(world: World) -> None:
    assert world.edge is not None
    world.start()
    world.until(lambda: world.env.caget(f"{P}Agent:State") == 1, "the agent is there")  # Bootstrap

    # While it waits for the file
    world.complete("1", write=False)
    world.until(lambda: "1" in world.outcomes(), "the scan is told")
    world.end()
    world.write("1")

    # In every step of the first scan
    for step in ("reconstruct", "label", "train"):
        begun = world.hold(step, "1")
        world.start()
        begun()
        world.end()

    # In the push: the edge does not answer
    world.edge.popen.send_signal(signal.SIGSTOP)
    world.start()
    world.until(lambda: world.journal(lambda journal: journal.waiting_push), "the push waits")
    world.end()
    world.edge.popen.send_signal(signal.SIGCONT)
    world.start()
    world.done("1")
    first = world.live

    # In judging; and three scans complete while nobody watches
    begun = world.hold("judge", "2")
    world.complete("2")
    begun()
    world.end()
    for name in ("3", "4", "5"):
        world.complete(name)
    world.start()
    world.done("1", "2", "3", "4", "5")

    # Whenever it comes
    for number, after_s in enumerate((0.0, 0.5), start=6):
        world.complete(str(number))
        world.until(lambda name=str(number): name in world.outcomes(), "the scan is told")
        time.sleep(after_s)
        world.end()
        world.start()
    names = [str(number) for number in range(1, 8)]
    world.done(*names)
    assert world.end(signal.SIGTERM) == 0, world.outputs[-1]

    assert sorted(world.outcomes()) == names  # none lost, none repeated
    assert all(outcome.startswith("trained on") for outcome in world.outcomes().values())
    ends = [line for line in world.lines if line.endswith("ends")]
    expected = [f"{step} {name} ends" for name in names for step in STEPS if (step, name) != ("judge", "1")]
    assert sorted(ends) == sorted(expected)  # each step came to its end once
    store = ModelStore(world.work / "models")
    models = [model.sha256 for model in store.models()]
    assert len(models) == len(names) and store.damaged() == []
    assert first == models[0] and world.live == models[-1]
    assert not any("Traceback" in output for output in world.outputs)


def test_operators_rule_the_policy_by_records_that_tell_why(world: World) -> None:
    """Switch, tolerance, number of scans and interval; every change of state, with its reason, in Agent:Message."""
    messages: list[str] = []
    with contextlib.closing(world.env.pva.monitor(f"{P}Agent:Message", lambda said: messages.append(str(said.value)))):
        for name, value in (("Tolerance", 0.5), ("Scans", 2), ("Interval", 3600.0), ("Enable", 0)):
            world.env.caput(f"{P}Agent:{name}", value)
        world.start()
        world.until(lambda: world.env.caget(f"{P}Agent:State") == 4, "paused")
        world.complete("1")
        world.done("1")
        assert world.outcomes()["1"].startswith("passed over: paused") and world.lines == []
        world.env.caput(f"{P}Agent:Enable", 1)
        world.until(lambda: world.env.caget(f"{P}Agent:State") == 1, "bootstrap")
        for number in range(2, 6):  # SSIM is 0.1: beyond the tolerance; then within it, twice; then it rests
            world.complete(str(number))
            world.done(str(number))
            if number == 3:
                world.env.caput(f"{P}Agent:Tolerance", 0.95)
        assert world.env.caget(f"{P}Agent:State") == 3
        world.complete("6")
        world.done("6")
        world.env.caput(f"{P}Agent:Interval", 1.0)
        world.env.caput(f"{P}Agent:Tolerance", 0.5)
        number = 6
        while list(world.outcomes().values())[-1].startswith("passed over"):  # until the interval is over
            number += 1
            assert number < 60
            world.complete(str(number))
            world.done(str(number))
        outcomes = list(world.outcomes().values())
        wanted = ["passed over: paused", "trained on", "trained on", "judged: mismatch 0.900, tolerance 0.950: 1 of 2",
                  "judged: mismatch 0.900, tolerance 0.950, 2 scans in a row: suspend",
                  *["passed over: suspended"] * (number - 6), "trained on"]  # fmt: skip
        for outcome, words in zip(outcomes, wanted, strict=True):
            assert outcome.startswith(words), outcomes
        transitions = world.journal(Journal.transitions)
        states = ["Paused", "Bootstrap", "Active", "Suspended", "Active"]
        assert [state for _, state, _ in transitions] == states
        world.end(signal.SIGTERM)
        for _, _, reason in transitions:
            assert any(reason in message for message in messages), (reason, messages)
            assert reason in world.outputs[-1]
        # and it stands there for as long as what follows of it takes, or until the next scan
        (*_, suspended), (*_, active) = transitions[-2:]
        assert any(message.startswith(f"scan 5: judged: {suspended}") for message in messages), messages
        assert any(message.startswith(f"scan {number}: train ({active})") for message in messages), messages


def test_a_model_that_the_edge_refuses_is_pushed_again_when_that_has_started_anew(world: World) -> None:
    assert world.edge is not None
    world.edge.stop()
    world.edge.__exit__()
    with world.edge_ioc() as world.edge:  # without a folder for models
        world.start()
        world.complete("1")
        world.until(lambda: "in vain" in str(world.env.caget(f"{P}Agent:Message")), "refused")
        world.complete("2")  # the newest wins
        world.done("1", "2")
        world.until(lambda: world.env.caget(f"{P}Agent:Message").startswith("model"), "refused again")
        assert world.live == ""
        world.edge.stop()
    newest = ModelStore(world.work / "models").models()[-1].sha256
    with world.edge_ioc("--models-dir", str(world.folder / "models")) as world.edge:
        world.until(lambda: world.live == newest, "the model is live")
        world.end(signal.SIGTERM)
    assert "Traceback" not in world.outputs[-1]


def test_what_the_edge_went_back_from_is_marked_though_the_agent_was_dead(world: World) -> None:
    world.start()
    world.until(lambda: world.env.caget(f"{P}Agent:State") == 1, "the agent is there")
    for name in ("1", "2"):
        world.complete(name)
        world.done(name)
    store = ModelStore(world.work / "models")
    first, second = (model.sha256 for model in store.models())
    assert world.live == second
    world.end()
    world.env.caput(f"{P}RollbackModel", 1)
    assert world.live == first and not store.get(second).shunned
    for _ in range(2):  # the second life sees the same message
        world.start()
        world.until(lambda: store.get(second).shunned, "the mark")
        world.until(lambda: world.env.caget(f"{P}Agent:Lease_RBV"), "the agent is there")
        world.end()
    mark = store.get(second).rolled_back
    assert mark is not None and mark.reason == "by an operator"
    assert sum("is marked as rolled back: by an operator" in output for output in world.outputs) == 1
    assert not store.get(first).shunned


def test_a_second_agent_refuses(world: World) -> None:
    world.start()
    world.until(lambda: world.env.caget(f"{P}Agent:State") == 1, "the agent is there")
    command = (sys.executable, "-m", "ptychostream", "agent", "--config", str(world.folder / "agent.toml"))
    with world.env.start(*command) as second:
        assert second.wait(30) == 2
        assert "is at work here" in second.output and "stop that agent" in second.output
    # nor for the same edge from a folder of its own
    elsewhere = world.folder / "elsewhere.toml"
    elsewhere.write_text("refused_s = 3\n" + (world.folder / "agent.toml").read_text())
    with world.env.start(*command[:-1], str(elsewhere), "--work", str(world.folder / "elsewhere")) as second:
        assert second.wait(30) == 2
        assert "is the agent of this edge" in second.output and "end that agent first" in second.output
    assert world.end(signal.SIGTERM) == 0
    assert world.env.caget(f"{P}Agent:State") == 0  # Offline
