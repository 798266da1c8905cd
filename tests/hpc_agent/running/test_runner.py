"""Steps in processes of their own: results, errors, crashes, time limits, cancelling, and the death of the agent."""

from __future__ import annotations

import json
import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest
from epics_env import wait_until
from folders import HELPERS

from ptychostream.config import load_settings
from ptychostream.errors import AgentError, ConfigError, ReconstructionError, TrainingError
from ptychostream.hpc_agent.running.parsl_settings import ParslSettings
from ptychostream.hpc_agent.running.parsl_step import ends_with_agent, run_on_node
from ptychostream.hpc_agent.running.runner import LocalRunner, RunnerSettings, StepRunner, make_runner

pytestmark = pytest.mark.server

Start = Callable[..., StepRunner]


@pytest.fixture(params=["local", "forked", "threads", "htex"])
def start(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Start]:
    """Runners of every kind that needs no cluster."""
    monkeypatch.setenv("PYTHONPATH", str(HELPERS))
    running: list[StepRunner] = []

    def make(**settings: Any) -> StepRunner:
        values: dict[str, Any] = {"module": "scripted_steps", "kind": "local", **settings}
        if request.param == "forked":
            values["preload"] = ("ptychostream.errors",)
        elif request.param != "local":
            values |= {"kind": "parsl", "parsl": {"executor": request.param}}
        running.append(make_runner(RunnerSettings.model_validate(values), tmp_path / "work"))
        return running[-1]

    yield make
    for runner in running:
        runner.close()


def submit(runner: StepRunner, step: str = "train", on_progress: Any = None, **script: Any) -> Future[dict[str, Any]]:
    return runner.submit(step, {"key": "scan1", "script": script}, on_progress)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def pids_of(path: Path) -> list[int]:
    wait_until(lambda: path.exists() and path.read_text(), 60, "the step begins")
    return list(json.loads(path.read_text()))


@pytest.mark.server
def test_what_steps_give_and_say(start: Start, tmp_path: Path) -> None:
    runner = start(threads=1, nice=3, timeouts_s={"judge": 1.0})
    seen: list[Any] = []
    result = submit(runner, "label", seen.append).result(60)
    assert result["step"] == "label" and seen[-1] == {"epoch": 2}
    assert result["arguments"] == {"key": "scan1", "script": {}, "nice": 3, "threads": 1}
    assert {result["environment"][f"{name}_NUM_THREADS"] for name in ("OMP", "MKL", "NUMBA")} == {"1"}
    assert "label begins" in (tmp_path / "work/scans/scan1/label-1/log.txt").read_text()
    # what the step says is raised here as it was there: no retry
    with pytest.raises(TrainingError, match=r"here: it cannot be done \(give up\)"):
        submit(runner, error="TrainingError").result(60)
    with pytest.raises(ReconstructionError):
        submit(runner, error="ReconstructionError").result(60)
    # whatever else happens to it may pass: a retry
    with pytest.raises(AgentError, match=r"was killed by SIGKILL; its last words: train begins"):
        submit(runner, kill="SIGKILL").result(60)
    with pytest.raises(AgentError, match=r"ended with status 1; its last words: .*RuntimeError: out of luck"):
        submit(runner, crash="out of luck").result(60)
    with pytest.raises(AgentError, match="left no result"):
        submit(runner, silent=True).result(60)
    with pytest.raises(AgentError, match="was not done within 1 s"):
        submit(runner, "judge", sleep=600).result(60)
    assert len([*(tmp_path / "work/scans/scan1").glob("train-*")]) == 5


@pytest.mark.server
def test_cancelling_ends_all_that_was_started(start: Start, tmp_path: Path) -> None:
    runner = start()
    future = submit(runner, sleep=600, pids=str(tmp_path / "pids"), deaf=True)
    pids = pids_of(tmp_path / "pids")
    assert all(map(alive, pids))
    future.cancel()
    with pytest.raises(AgentError, match="was given up"):
        future.result(60)
    assert not any(map(alive, pids))


@pytest.mark.server
def test_closing_ends_what_runs_and_takes_nothing_more(start: Start, tmp_path: Path) -> None:
    runner = start()
    submit(runner, sleep=600, pids=str(tmp_path / "pids"))
    pids = pids_of(tmp_path / "pids")
    runner.close()
    assert not any(map(alive, pids))
    with pytest.raises(AgentError, match="closed"):
        submit(runner)


AGENT = """
import sys, time
from pathlib import Path
from ptychostream.hpc_agent.running.runner import RunnerSettings, make_runner
kind, work, pids = sys.argv[1:]
parsl = {"executor": "htex", "heartbeat_s": 4} if kind == "parsl" else {}
preload = ("ptychostream.errors",) if kind == "forked" else None
kind = "local" if kind == "forked" else kind
settings = RunnerSettings(module="scripted_steps", kind=kind, parsl=parsl, preload=preload)
runner = make_runner(settings, Path(work))
runner.submit("train", {"key": "1", "script": {"sleep": 600, "pids": pids}}).result()
"""


@pytest.mark.server
@pytest.mark.parametrize("kind", ["local", "forked", "parsl"])
def test_no_step_outlives_its_agent(kind: str, tmp_path: Path) -> None:
    command = [sys.executable, "-c", AGENT, kind, str(tmp_path / "work"), str(tmp_path / "pids")]
    agent = subprocess.Popen(command, env={**os.environ, "PYTHONPATH": str(HELPERS)}, start_new_session=True)
    try:
        pids = pids_of(tmp_path / "pids")
    finally:
        agent.send_signal(signal.SIGKILL)
        agent.wait()
    wait_until(lambda: not any(map(alive, pids)), 60, "the step and its child end")
    # Parsl's own processes too, a heartbeat later
    wait_until(lambda: not members(agent.pid), 60, lambda: f"left: {members(agent.pid)}")


def members(session: int) -> list[str]:
    """Processes of a session that live."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, _, its = stat.read_text().rpartition(")")[2].split()[:4]
        except OSError:
            continue
        if int(its) == session and state != "Z":
            found.append((stat.parent / "cmdline").read_text())
    return found


def test_a_step_on_a_node_ends_when_its_agent_is_gone(tmp_path: Path) -> None:
    sign = tmp_path / "agent"
    sign.write_text("one")
    why = ends_with_agent(tmp_path, sign, "one", 0.5)
    assert why() == ""
    time.sleep(0.6)
    assert "no sign of its agent for 0" in why()
    sign.touch()
    assert why() == ""
    sign.write_text("two")
    assert "another agent" in why()
    (tmp_path / "stop").touch()
    assert why() == "was given up"


@pytest.mark.server
def test_steps_are_forked_from_one_process_that_is_replaced_when_it_dies(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(HELPERS))
    settings = RunnerSettings(module="scripted_steps", preload=("ptychostream.errors",), nice=4)
    runner = LocalRunner(settings, tmp_path / "work")
    try:
        future = submit(runner, sleep=600, pids=str(tmp_path / "pids"))
        step, its = pids_of(tmp_path / "pids")
        server = parent_of(step)
        assert os.getpriority(os.PRIO_PROCESS, server) == max(4, os.getpriority(os.PRIO_PROCESS, 0))
        os.kill(server, signal.SIGKILL)
        with pytest.raises(AgentError, match="was killed"):
            future.result(60)
        assert not alive(step) and not alive(its)
        assert submit(runner).result(60)["step"] == "train"  # by an interpreter of its own, while a new one loads
        submit(runner, sleep=600, pids=str(tmp_path / "again"))
        step, _ = pids_of(tmp_path / "again")
        assert alive(another := parent_of(step)) and another not in (server, os.getpid())
    finally:
        runner.close()
    assert not alive(step) and not alive(another)


@pytest.mark.server
def test_modules_that_cannot_be_loaded_stop_no_step(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PYTHONPATH", str(HELPERS))
    settings = RunnerSettings(module="scripted_steps", preload=("no_such_module",))
    runner = LocalRunner(settings, tmp_path / "work")
    try:
        assert submit(runner).result(60)["step"] == submit(runner).result(60)["step"] == "train"
    finally:
        runner.close()


def parent_of(pid: int) -> int:
    """0: it is gone."""
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return 0


# Settings


def test_steps_on_the_agents_machine_stand_back() -> None:
    here = RunnerSettings()
    assert here.arguments() == {"nice": 10, "threads": max(1, len(os.sched_getaffinity(0)) - 1)}
    assert RunnerSettings(threads=3, nice=0).arguments() == {"nice": 0, "threads": 3}
    assert RunnerSettings(kind="parsl").arguments()["nice"] == 10
    assert RunnerSettings(kind="parsl", parsl=ParslSettings(provider="slurm")).arguments() == {"nice": 0}


@pytest.mark.parametrize(
    ("toml", "message"),
    [
        ('[parsl]\nprovider = "slurm"\nqueue = "debug"', r"queue is for provider pbspro, not slurm: remove it"),
        ('[parsl]\nprovider = "pbspro"\npartition = "gpu"', r"partition is for provider slurm, not pbspro"),
        ('[parsl]\nwalltime = "01:00:00"', r"walltime is for provider slurm or pbspro, not local"),
        ('[parsl]\nprovider = "slurm"\nwalltime = "1h"', r"parsl.walltime = '1h': .*HH:MM:SS"),
        ('[parsl]\nprovider = "slurm"\nexecutor = "threads"', r"executor threads cannot reach slurm"),
        ('[parsl]\nprovider = "slurm"\nnodes = 2', r"nodes = 2 with launcher simple: give srun"),
        ('[parsl]\nprovider = "lsf"', r"parsl.provider = 'lsf' must be one of 'local', 'slurm' or 'pbspro'"),
        ('[parsl]\nprovider = "slurm"\ngpu = 4', r"unknown key 'parsl.gpu'"),
        ("threads = 0", r"threads = 0 must be at least 1"),
    ],
)
def test_what_is_wrong_is_named(toml: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "runner.toml"
    path.write_text(toml)
    with pytest.raises(ConfigError, match=message) as caught:
        load_settings(RunnerSettings, path, {})
    assert caught.value.where == str(path) and caught.value.remedy


# Submit scripts


def script_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, submit_command: str, **settings: Any) -> tuple[str, str]:
    """The submit script, and how it is submitted, by a scheduler's commands that keep what they are given."""
    from ptychostream.hpc_agent.running.parsl_config import make_provider

    commands = tmp_path / "bin"
    commands.mkdir()
    told = tmp_path / "told"
    (commands / submit_command).write_text(f'#!/bin/sh\necho "$@" > {told}\necho "Submitted batch job 7"\n')
    (commands / submit_command).chmod(0o755)
    (commands / "sacct").write_text("#!/bin/sh\nexit 1\n")
    (commands / "sacct").chmod(0o755)
    monkeypatch.setenv("PATH", f"{commands}:{os.environ['PATH']}")
    provider = make_provider(ParslSettings.model_validate(settings))
    provider.script_dir = str(tmp_path)
    assert provider.submit("the worker's command", 1, "steps")
    script = next(path for path in tmp_path.glob("steps*") if path.suffix not in (".stdout", ".stderr"))
    return script.read_text(), told.read_text()


@pytest.mark.server
def test_the_submit_script_for_slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script, _ = script_of(
        tmp_path,
        monkeypatch,
        "sbatch",
        provider="slurm",
        partition="gpu",
        account="ptycho",
        qos="high",
        constraint="a100",
        walltime="02:30:00",
        nodes=2,
        cores=32,
        gpus=4,
        memory_gb=128,
        launcher="srun",
        scheduler_options="#SBATCH --reservation=beamtime",
        worker_init="module load conda\nsource activate ptychostream",
    )
    lines = script.splitlines()
    for option in (
        "partition=gpu",
        "account=ptycho",
        "qos=high",
        "constraint=a100",
        "time=150",
        "nodes=2",
        "ntasks-per-node=1",
        "cpus-per-task=32",
        "gpus-per-node=4",
        "mem=128g",
        "exclusive",
        "reservation=beamtime",
    ):
        assert f"#SBATCH --{option}" in lines, option
    assert lines.index("module load conda") < lines.index("source activate ptychostream") < len(lines)
    assert "srun --ntasks 2" in script and "the worker's command" in script


@pytest.mark.server
def test_the_submit_script_for_pbs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script, told = script_of(
        tmp_path,
        monkeypatch,
        "qsub",
        provider="pbspro",
        queue="preemptable",
        account="ptycho",
        walltime="00:45:00",
        cores=64,
        gpus=4,
        select_options="system=polaris",
        scheduler_options="#PBS -l filesystems=home:eagle",
        worker_init="module load conda",
    )
    lines = script.splitlines()
    assert "#PBS -l walltime=00:45:00" in lines
    assert "#PBS -l select=1:ncpus=64:ngpus=4:system=polaris" in lines
    assert "#PBS -l filesystems=home:eagle" in lines
    assert lines.index("module load conda") < lines.index("the worker's command")
    assert "-q preemptable" in told and "-A ptycho" in told


@pytest.mark.server
def test_without_worker_init_the_agents_own_python_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script, _ = script_of(tmp_path, monkeypatch, "sbatch", provider="slurm")
    assert f"export PATH={Path(sys.executable).parent}:$PATH" in script
    assert "--partition" not in script and "--account" not in script and "--gpus" not in script


def test_without_parsl_the_remedy_is_named(tmp_path: Path) -> None:
    code = (
        "import sys; sys.modules['parsl'] = None\n"
        "from pathlib import Path\n"
        "from ptychostream.hpc_agent.running.runner import RunnerSettings, make_runner\n"
        "make_runner(RunnerSettings(), Path('w')).close()\n"
        "make_runner(RunnerSettings(kind='parsl'), Path('w'))\n"
    )
    ended = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert "ConfigError: runner.kind: parsl cannot be imported" in ended.stderr and "pip install parsl" in ended.stderr


@pytest.mark.parametrize("module", ["ptychostream.hpc_agent.running.parsl_step", "ptychostream.hpc_agent.parsl_step"])
def test_a_worker_finds_the_step_function_by_either_name(module: str) -> None:
    """Parsl sends the name of a function; an agent before version 0.2 sends the second one."""
    from parsl.serialize import deserialize, serialize

    sent = serialize(run_on_node)
    assert b"ptychostream.hpc_agent.running.parsl_step" in sent
    pickled = b"c" + module.encode() + b"\nrun_on_node\n."  # pickle's text form of a global name
    assert deserialize(sent) is pickle.loads(pickled) is run_on_node


def test_local_steps_need_no_parsl() -> None:
    code = "import sys, ptychostream.hpc_agent.running.runner; assert not {'parsl', 'torch'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


@pytest.mark.server
def test_the_local_runner_is_the_default(tmp_path: Path) -> None:
    runner = make_runner(RunnerSettings(), tmp_path)
    assert isinstance(runner, LocalRunner)
    runner.close()
