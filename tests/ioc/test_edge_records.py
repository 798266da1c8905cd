"""The agent's records on a real IOC: what the agent writes, what it reads, its lease, its watchdog and its rollback.

The agent's side runs in processes of its own (`edge_probe.py`), which are stopped, killed and started again.
"""

from __future__ import annotations

import json
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from caproto import ChannelType
from epics_env import EpicsEnv, Process, wait_until
from folders import HELPERS
from hypothesis import given
from hypothesis import strategies as st
from ioc_helpers import run_python, wait_for
from tiny_model import write_tiny

from ptychostream.errors import AgentError
from ptychostream.hpc_agent.edge.edge_values import STATES, WRITTEN, encoded
from ptychostream.ioc.attached_agent import AttachedAgent, CommandStatus, Lease, Pulse
from ptychostream.model.rollback_text import BY_OPERATOR, went_back

pytestmark = pytest.mark.server

P = "ag:"
PROBE = HELPERS / "edge_probe.py"


class Probe:
    """`edge_probe.py` as a child."""

    def __init__(self, env: EpicsEnv, holder: str = "agent-a", prefix: str = P) -> None:
        self.popen = subprocess.Popen(
            [sys.executable, str(PROBE), prefix, holder],
            env=env.env,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.lines: queue.Queue[dict[str, Any]] = queue.Queue()
        self.commands: queue.Queue[str] = queue.Queue()
        self.refusals: list[str] = []
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self.popen.stdout is not None
        for line in self.popen.stdout:
            said = json.loads(line)
            if "command" in said:
                self.commands.put(said["command"])
            elif "refused" in said:
                self.refusals.append(said["refused"])
            else:
                self.lines.put(said)

    def tell(self, **order: Any) -> None:
        assert self.popen.stdin is not None
        self.popen.stdin.write(json.dumps(order) + "\n")
        self.popen.stdin.flush()

    def ask(self) -> dict[str, Any]:
        self.tell(ask=1)
        asked: dict[str, Any] = self.lines.get(timeout=20)["asked"]
        return asked

    def wait_held(self, held: bool = True) -> None:
        wait_until(lambda: self.ask()["held"] == held, 20, lambda: f"held = {held}: {self.ask()}, {self.refusals}")

    def end(self) -> None:
        """As the agent ends when it is asked to."""
        self.tell(stop=1)
        assert self.popen.wait(20) == 0

    def kill(self) -> None:
        self.popen.send_signal(signal.SIGCONT)
        self.popen.kill()
        self.popen.wait()
        for pipe in (self.popen.stdin, self.popen.stdout):
            if pipe is not None:
                pipe.close()

    def __enter__(self) -> Probe:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()


class Rig:
    """An IOC with models."""

    def __init__(self, env: EpicsEnv, folder: Path) -> None:
        self.env, self.folder = env, folder
        (folder / "ioc.toml").write_text("[agent]\ntimeout_s = 3\n")
        self.shas = {name: write_tiny(folder / f"{name}.onnx", gain=gain, name=name) for name, gain in
                     (("first", 0.01), ("second", 0.02), ("third", 0.03))}  # fmt: skip
        self.server_env = env.server_env()
        self.ioc = self.start()

    def start(self) -> Process:
        folder = self.folder
        arguments = ["--config", str(folder / "ioc.toml"), "--prefix", P, "--engine", "ONNXRuntime", "--threads", "1"]
        arguments += ["--models-dir", str(folder), "--model", "first.onnx", "--engine-cache", str(folder / "cache")]
        return self.env.start_ioc(*arguments, env=self.server_env)

    def get(self, name: str) -> Any:
        return self.env.caget(P + name)

    def put(self, name: str, value: Any, **options: Any) -> None:
        self.env.caput(P + name, value, **options)

    def caput_and_wait(self, name: str) -> None:
        """`caput -c`, by a process of its own."""
        code = (
            "import sys, caproto.sync.client as ca\nca.write(sys.argv[1], 1, notify=True, timeout=60, repeater=False)\n"
        )
        run_python(self.env, code, P + name, timeout=90)

    def wait(self, name: str, value: Any) -> None:
        wait_for(self.env, P + name, value)

    def severity(self, name: str) -> int:
        return int(self.env.pvget(P + name).alarm.severity)

    def load(self, name: str) -> None:
        self.put("ModelFile", list(f"{name}.onnx".encode() + b"\0"))
        self.put("LoadModel", 1)
        assert self.get("ModelSHA_RBV") == self.shas[name]


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    with EpicsEnv() as env:
        made = Rig(env, tmp_path_factory.mktemp("edge"))
        with made.ioc:
            yield made
            assert made.ioc.stop() == 0, made.ioc.output
            assert "Traceback" not in made.ioc.output


def test_what_the_agent_reports_is_shown_and_what_operators_set_is_read(rig: Rig) -> None:
    with Probe(rig.env) as agent:
        agent.wait_held()
        told = {"State": "Active", "LastScan": "scan 7", "Epoch": 3, "Epochs": 50, "TrainLoss": 0.25, "ValLoss": 0.5,
                "CorpusFrames": 12_345, "Message": "größer " * 30}  # fmt: skip
        agent.tell(report=told)
        rig.wait("Agent:State", STATES.index("Active"))
        for name, value in told.items():
            if name != "State":
                rig.wait(f"Agent:{name}", value)
        first = rig.get("Agent:Heartbeat")
        wait_until(lambda: rig.get("Agent:Heartbeat") > first + 1, 10, "the heart beats")

        settings = {"Policy": 2, "Interval": 120.0, "Tolerance": 0.25, "Scans": 7, "Enable": 0}
        before = {name: rig.get(f"Agent:{name}") for name in settings}
        for name, value in settings.items():
            rig.put(f"Agent:{name}", value)
        wanted = {"training": "never", "interval_s": 120, "tolerance": 0.25, "scans": 7, "enabled": False,
                  "live": rig.shas["first"], "previous": ""}  # fmt: skip
        wait_until(lambda: wanted.items() <= agent.ask().items(), 10, lambda: f"{wanted}: {agent.ask()}")
        for name, value in before.items():
            rig.put(f"Agent:{name}", value)
        agent.tell(report={"State": "Offline"})
        agent.end()
        assert rig.get("Agent:State") == 0  # the last word is not lost
        rig.wait("Agent:Lease_RBV", "")


def test_a_second_agent_is_refused_until_the_first_is_gone(rig: Rig) -> None:
    with Probe(rig.env, "agent-a") as first:
        first.wait_held()
        assert rig.get("Agent:Lease_RBV") == "agent-a"
        with Probe(rig.env, "agent-b") as second:
            second.tell(report={"Message": "of the second"})
            wait_until(lambda: second.refusals, 20, "refused")
            assert "agent-a is the agent of this edge" in second.refusals[0]
            assert not second.ask()["held"]
            assert rig.get("Agent:Message") != "of the second"
            first.kill()  # no farewell: its lease ends with its heartbeat
            second.wait_held()
            rig.wait("Agent:Message", "of the second")
            assert rig.get("Agent:Lease_RBV") == "agent-b"


def test_a_heart_that_stops_alarms_and_recovers_by_itself(rig: Rig) -> None:
    with Probe(rig.env) as agent:
        agent.wait_held()
        agent.tell(report={"State": "Suspended"})
        rig.wait("Agent:State", 3)
        wait_until(lambda: rig.get("Agent:Heartbeat") > 1, 10, "the heart beats")
        wait_until(lambda: rig.severity("Agent:Heartbeat") == 0, 10, "no alarm")
        agent.popen.send_signal(signal.SIGSTOP)
        rig.wait("Agent:Lost_RBV", 1)
        assert rig.severity("Agent:Heartbeat") == 2
        assert rig.get("Agent:State") == 0
        agent.popen.send_signal(signal.SIGCONT)
        rig.wait("Agent:Lost_RBV", 0)
        rig.wait("Agent:State", 3)
        wait_until(lambda: rig.severity("Agent:Heartbeat") == 0, 10, "the alarm is over")
        agent.kill()
        rig.wait("Agent:Lost_RBV", 1)  # and again
        rig.wait("Agent:State", 0)
        assert rig.severity("Agent:Heartbeat") == 2


@pytest.mark.parametrize("name", ["Reconstruct", "Retrain"])
def test_a_command_completes_when_the_agent_has_done_it(rig: Rig, name: str) -> None:
    with Probe(rig.env) as agent, ThreadPoolExecutor(1) as pool:
        agent.wait_held()
        wait_until(lambda: rig.get("Agent:Heartbeat") > 1, 10, "the heart beats")
        rig.wait("Agent:Lost_RBV", 0)
        for _ in range(2):
            waiting = pool.submit(rig.caput_and_wait, f"Agent:{name}")
            assert agent.commands.get(timeout=20) == name.lower()
            rig.wait("Agent:CommandStatus_RBV", CommandStatus.WORKING)
            assert not waiting.done()
            agent.tell(done=name.lower())
            waiting.result(20)
            assert rig.get(f"Agent:{name}") == 0
            assert rig.get("Agent:CommandStatus_RBV") == CommandStatus.IDLE
        assert agent.commands.empty()


def test_a_command_without_an_agent_says_so(rig: Rig) -> None:
    rig.wait("Agent:Lost_RBV", 1)
    rig.put("Agent:Retrain", 1)
    assert rig.get("Agent:CommandStatus_RBV") == CommandStatus.NO_AGENT
    assert rig.severity("Agent:CommandStatus_RBV") == 2
    assert "no agent is at work" in rig.get("StatusMessage_RBV")
    with Probe(rig.env) as agent, ThreadPoolExecutor(1) as pool:
        agent.wait_held()
        rig.wait("Agent:CommandStatus_RBV", CommandStatus.IDLE)
        waiting = pool.submit(rig.caput_and_wait, "Agent:Retrain")
        assert agent.commands.get(timeout=20) == "retrain"
        agent.kill()  # while somebody waits
        waiting.result(20)
        assert rig.get("Agent:CommandStatus_RBV") == CommandStatus.NO_AGENT
    with Probe(rig.env) as agent:
        agent.wait_held()
        assert agent.commands.empty()  # what was given up is not done later


def test_a_model_that_is_worse_than_the_one_before_is_taken_back(rig: Rig) -> None:
    rig.load("second")
    rig.load("first")
    second, first = rig.shas["second"], rig.shas["first"]
    with Probe(rig.env) as agent:
        agent.wait_held()
        agent.tell(judged=[first, 0.80, second, 0.82])  # within the tolerance of 0.05
        wait_until(lambda: "tolerance 0.050" in rig.get("RollbackMessage_RBV"), 10, "judged")
        assert (rig.get("ModelSHA_RBV"), rig.get("ModelRolledBack_RBV")) == (first, 0)
        agent.tell(judged=[first, 0.60, second, 0.82])
        rig.wait("ModelRolledBack_RBV", 1)
        rig.wait("ModelSHA_RBV", second)
        assert rig.severity("ModelRolledBack_RBV") == 2
        message = rig.get("RollbackMessage_RBV")
        assert first in message
        assert second in message
        assert message.endswith("as agent-a has judged")
        wait_until(lambda: agent.ask()["live"] == second, 10, "the agent knows")
        assert (rig.get("Agent:SSIM"), rig.get("Agent:SSIMPrevious")) == (0.6, 0.82)
        rig.put("AcknowledgeRollback", 1)
        assert rig.get("ModelRolledBack_RBV") == 0
        assert rig.severity("ModelRolledBack_RBV") == 0
    rig.load("third")
    rig.load("first")
    with Probe(rig.env) as agent:
        agent.wait_held()
        agent.tell(judged=[first, 0.1, rig.shas["third"], 0.9])
        rig.wait("ModelRolledBack_RBV", 1)
        rig.load("second")  # the next good model ends the alarm as well
        assert rig.get("ModelRolledBack_RBV") == 0


def test_a_judgement_of_nobody_is_not_followed(rig: Rig) -> None:
    rig.load("second")
    rig.load("first")
    first, second = rig.shas["first"], rig.shas["second"]
    rig.wait("Agent:Lost_RBV", 1)  # the agent of the test before was killed, and has the lease still
    time.sleep(3.5)  # a lease counts as alive for timeout_s after it was taken, whether the heart beats or not
    for name, value in (("SSIM", 0.1), ("SSIMPrevious", 0.9), ("JudgedPreviousSHA", second), ("JudgedSHA", first)):
        rig.put(f"Agent:{name}", value)
    wait_until(lambda: "the heart of agent-a does not beat" in rig.get("StatusMessage_RBV"), 10, "the refusal")
    assert (rig.get("ModelSHA_RBV"), rig.get("ModelRolledBack_RBV")) == (first, 0)


def test_the_agent_sees_what_an_operator_goes_back_from_and_how_the_dose_is_chosen(rig: Rig) -> None:
    rig.load("second")
    rig.load("first")
    second, first = rig.shas["second"], rig.shas["first"]
    with Probe(rig.env) as agent:
        agent.wait_held()
        wait_until(lambda: agent.ask()["dose"] == {"automatic": False, "scale": 1.0, "canvas": None}, 20, "dose")
        assert agent.ask()["saves"] is False
        rig.put("RollbackModel", 1)
        assert (rig.get("ModelSHA_RBV"), rig.get("ModelRolledBack_RBV")) == (second, 0)
        told = went_back(first, second, BY_OPERATOR)
        wait_until(lambda: agent.ask()["rollback"] == told, 20, lambda: f"the rollback: {agent.ask()}")
        for name, value in (("DoseMode", 1), ("DoseScale", 3.5), ("AutoSaveCanvas", 1)):
            rig.put(name, value)
        try:
            wanted = {"automatic": True, "scale": 3.5, "canvas": None}
            wait_until(lambda: agent.ask()["dose"] == wanted and agent.ask()["saves"], 20, "the new setpoints")
        finally:
            for name, value in (("DoseMode", 0), ("DoseScale", 1), ("AutoSaveCanvas", 0)):
                rig.put(name, value)


def test_the_edge_starts_again_and_is_told_everything(rig: Rig) -> None:
    with Probe(rig.env) as agent:
        agent.wait_held()
        agent.tell(report={"State": "Active", "LastScan": "the last", "CorpusFrames": 99})
        rig.wait("Agent:CorpusFrames", 99)
        rig.ioc.stop(signal.SIGKILL)
        wait_until(lambda: agent.ask()["live"] is None, 20, "the agent sees that the edge is away")
        agent.tell(report={"Message": "said while it was away", "CorpusFrames": 100})
        assert agent.ask()["scans"] == 3  # what was read last holds
        rig.ioc.__exit__()
        rig.ioc = rig.start()
        rig.wait("Agent:CorpusFrames", 100)
        rig.wait("Agent:Message", "said while it was away")
        rig.wait("Agent:LastScan", "the last")
        rig.wait("Agent:State", 2)
        assert rig.get("Agent:Lease_RBV") == "agent-a"
        wait_until(lambda: agent.ask()["live"] == rig.shas["first"], 20, "the live model")
        rig.put("Agent:Scans", 5)
        wait_until(lambda: agent.ask()["scans"] == 5, 20, "switches")
        assert agent.refusals == []


def test_an_agent_that_may_not_write_is_told_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "ioc.toml").write_text("[access]\nagents = ['somebody-else']\noperators = ['nobody-here']\n")
    with EpicsEnv() as env:
        arguments = ["--config", str(tmp_path / "ioc.toml"), "--prefix", "no:", "--engine", "none"]
        with env.start_ioc(*arguments, wait="live") as ioc, Probe(env, prefix="no:") as agent:
            wait_until(lambda: agent.refusals, 20, "refused")
            assert "name it in access.agents" in agent.refusals[0]
            assert not agent.ask()["held"]
            assert env.caget("no:Agent:Lease_RBV") == ""
            agent.end()
            assert ioc.stop() == 0


OLD_EDGE = """
record(stringout, "old:Agent:Lease") {}
record(stringin, "old:Agent:Lease_RBV") { field(INP, "old:Agent:Lease CP") }
record(longout, "old:Agent:Heartbeat") {}
record(stringin, "old:ModelSHA_RBV") { field(VAL, "abc") field(PINI, "YES") }
record(ao, "old:Agent:ValLoss") {}
record(ao, "old:Agent:Tolerance") { field(VAL, "0.25") }
"""


def test_an_edge_that_is_older_lacks_records_and_is_served_all_the_same(tmp_path: Path) -> None:
    (tmp_path / "old.db").write_text(OLD_EDGE)
    with EpicsEnv() as env:
        command = (sys.executable, "-m", "pvxslibs.ioc", "-d", str(tmp_path / "old.db"))
        with env.start(*command, env=env.server_env()), Probe(env, prefix="old:") as agent:
            agent.wait_held()
            agent.tell(report={"State": "Active", "ValLoss": 0.5, "Message": "there is no such record"})
            agent.tell(judged=["abc", 0.5, "def", 0.9])
            wait_for(env, "old:Agent:ValLoss", 0.5)
            wait_until(lambda: agent.ask()["tolerance"] == 0.25, 20, "what it has is read")
            asked = agent.ask()
            assert (asked["live"], asked["previous"], asked["rollback"], asked["saves"]) == ("abc", None, None, False)
            assert asked["dose"] == {"automatic": None, "scale": None, "canvas": None}
            agent.end()


# The pure parts


@given(st.lists(st.tuples(st.floats(0, 5), st.booleans()), max_size=40))
def test_a_pulse_is_lost_only_after_it_has_moved_and_stood_still(steps: list[tuple[float, bool]]) -> None:
    pulse, now, value, moved = Pulse(3.0), 0.0, 7, None
    pulse.look(value, now)
    for wait, moves in steps:
        now += wait
        value += moves
        moved = now if moves else moved
        pulse.look(value, now)
        assert pulse.alive(now) == (moved is not None and now - moved < 3.0)
        assert pulse.lost(now) == (moved is not None and now - moved >= 3.0)


def test_a_lease_is_one_agents_until_it_is_given_back_or_dies() -> None:
    pulse = Pulse(3.0)
    lease = Lease(pulse)
    lease.ask("a", 0.0)
    lease.ask("a", 1.0)
    with pytest.raises(AgentError, match="b wants the lease that a has"):
        lease.ask("b", 2.9)  # a has just begun, and had no time for a heartbeat
    lease.ask("-b", 2.9)
    assert lease.holder == "a"
    pulse.look(1, 2.0)
    pulse.look(2, 2.9)
    with pytest.raises(AgentError):
        lease.ask("b", 5.0)
    lease.ask("b", 6.0)
    assert lease.holder == "b"
    lease.ask("-b", 6.1)
    lease.ask("c", 6.2)
    assert lease.holder == "c"


def test_an_edge_that_ends_lets_go_of_who_waits() -> None:
    now = [0.0]
    agent = AttachedAgent(3.0, clock=lambda: now[0])
    agent.look(1)
    now[0] = 1.0
    agent.look(2)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(agent.command, "retrain")
        wait_until(lambda: agent.asked["retrain"] == 1, 10, "asked")
        agent.close()
        with pytest.raises(AgentError, match="gone"):
            waiting.result(10)


@given(st.text(max_size=2000))
def test_texts_fit_their_records(text: str) -> None:
    short = encoded("Agent:LastScan", text, ChannelType.STRING)
    long = bytes(encoded("Agent:Message", text, ChannelType.CHAR))
    assert len(short) <= 39
    assert len(long) <= 1024
    assert long.endswith(b"\0")
    short.decode()
    long.decode()


def test_what_makes_the_edge_act_is_written_after_what_it_is_about() -> None:
    about = {"Agent:SSIM", "Agent:SSIMPrevious", "Agent:JudgedPreviousSHA"}
    assert about <= set(WRITTEN[: WRITTEN.index("Agent:JudgedSHA")])
