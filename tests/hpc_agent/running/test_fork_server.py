"""What a forked step gets from its agent, and what happens when the fork server or the agent is in trouble."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ptychostream.hpc_agent.running import fork_server
from ptychostream.hpc_agent.running.fork_server import ForkServer
from ptychostream.hpc_agent.running.runner import LocalRunner, RunnerSettings

pytestmark = pytest.mark.server

PROBE = """
import json, os, signal, sys, threading
targets = []
for name in os.listdir("/proc/self/fd"):
    try:
        targets.append(os.readlink(f"/proc/self/fd/{name}"))
    except OSError:
        pass  # the one that lists the folder
found = {
    "targets": targets,
    "threads": sorted(thread.name for thread in threading.enumerate()),
    "leads": os.getsid(0) == os.getpgid(0) == os.getpid(),
    "nice": os.getpriority(os.PRIO_PROCESS, 0),
    "limit": os.environ.get("OMP_NUM_THREADS"),
    "loaded": "loaded_once" in sys.modules and sys.modules["loaded_once"].process != os.getpid(),
}
print("to the log")
open(sys.argv[1], "w").write(json.dumps(found))
sys.exit(7)
"""
AGENT = """
import signal, sys
from pathlib import Path
signal.signal(signal.SIGINT, signal.SIG_IGN)  # as a shell does for what it starts in the background
from ptychostream.hpc_agent.running.fork_server import ForkServer
server = ForkServer((), 0, {})
step = server.start(["sleeps", sys.argv[1]], Path(sys.argv[1] + ".log"))
step.wait()
"""


@pytest.fixture
def modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "probe.py").write_text(PROBE)
    (tmp_path / "loaded_once.py").write_text("import os\nprocess = os.getpid()\n")
    (tmp_path / "sleeps.py").write_text(
        "import os, sys, time\nopen(sys.argv[1], 'w').write(str(os.getpid()))\ntime.sleep(600)\n"
    )
    (tmp_path / "fails.py").write_text("raise RuntimeError('built for another numpy')\n")
    (tmp_path / "hangs.py").write_text("import time\ntime.sleep(600)\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return tmp_path


@pytest.fixture
def server(modules: Path) -> Iterator[ForkServer]:
    server = ForkServer(("loaded_once",), 3, {"OMP_NUM_THREADS": "1"})
    yield server
    server.close()


def test_a_forked_step_has_nothing_of_the_agent(server: ForkServer, modules: Path) -> None:
    before = os.environ.get("OMP_NUM_THREADS")
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        inode = str(Path(f"/proc/self/fd/{listening.fileno()}").readlink())
        idle = threading.Event()
        thread = threading.Thread(target=idle.wait, name="of the agent")
        thread.start()
        step = server.start(["probe", str(modules / "found")], modules / "log.txt")
        assert step.wait(60) == step.poll() == 7
        idle.set()
        thread.join()
    found: dict[str, Any] = json.loads((modules / "found").read_text())
    assert inode not in found["targets"] and str(modules / "log.txt") in found["targets"]
    assert found["threads"] == ["MainThread", "parent"]
    assert found["leads"] and found["loaded"] and found["limit"] == "1"
    assert found["nice"] == max(3, os.getpriority(os.PRIO_PROCESS, 0))
    assert (modules / "log.txt").read_text() == "to the log\n"
    assert os.environ.get("OMP_NUM_THREADS") == before


def test_a_step_is_killed_by_a_signal_and_says_by_which(server: ForkServer, modules: Path) -> None:
    step = server.start(["sleeps", str(modules / "pid")], modules / "log.txt")
    with pytest.raises(subprocess.TimeoutExpired):
        step.wait(0.1)
    os.kill(step.pid, signal.SIGABRT)
    assert step.wait(60) == -signal.SIGABRT


@pytest.mark.parametrize("module", ["fails", "hangs"])
def test_a_server_that_cannot_load_its_modules_stops_no_step(
    module: str, modules: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(fork_server, "_LOAD_S", 3.0)
    (modules / "quick.py").write_text("import sys\nopen(sys.argv[3], 'w').write('{}')\n")
    runner = LocalRunner(RunnerSettings(module="quick", preload=(module,)), modules / "work")
    try:
        assert runner.submit("label", {"key": "1"}).result(60) == {}
    finally:
        runner.close()
    assert "the step label starts an interpreter of its own" in caplog.text


@pytest.mark.server
@pytest.mark.usefixtures("modules")
def test_no_step_outlives_an_agent_that_ignores_interrupts(tmp_path: Path) -> None:
    agent = subprocess.Popen([sys.executable, "-c", AGENT, str(tmp_path / "pid")])
    try:
        until(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text() != "")
        step = int((tmp_path / "pid").read_text())
        agent.send_signal(signal.SIGINT)
        assert Path(f"/proc/{step}").exists() and agent.poll() is None
    finally:
        agent.kill()
        agent.wait()
    until(lambda: not Path(f"/proc/{step}").exists())


def until(true: Any) -> None:
    deadline = time.monotonic() + 60
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.05)
