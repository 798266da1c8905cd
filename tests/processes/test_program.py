"""Programs that this process starts are stopped with all they started, and started again when they end."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from epics_env import wait_until

from ptychostream.processes import restarter as restarter_module
from ptychostream.processes.program import Program, stop
from ptychostream.processes.restarter import Restarter, stop_all

pytestmark = pytest.mark.server

SCRIPT = """
import json, os, signal, subprocess, sys, time
from pathlib import Path
report, kind = sys.argv[1:]
if kind == "deaf":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
Path(report + ".new").write_text(json.dumps([os.getpid(), child.pid]))
os.replace(report + ".new", report)
print("it runs")
try:
    time.sleep(600)
except KeyboardInterrupt:
    child.kill()
    child.wait()
    print("it ends")
    sys.exit(0)
"""


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    (tmp_path / "script.py").write_text(SCRIPT)
    return {**os.environ, "PYTHONPATH": str(tmp_path)}


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def pids(report: Path) -> list[int]:
    wait_until(report.exists, 60, "the program runs")
    found: list[int] = json.loads(report.read_text())
    report.unlink()
    return found


def test_a_program_is_asked_first_and_ends_cleanly(tmp_path: Path, environment: dict[str, str]) -> None:
    log = tmp_path / "log"
    program = Program("script", [str(tmp_path / "report"), "good"], log, environment)
    process, its = pids(tmp_path / "report")
    assert process == program.pid == os.getpgid(process) == os.getsid(process)
    assert stop(program, patience_s=30.0)
    assert program.returncode == 0 and not alive(its)
    assert log.read_text() == "it runs\nit ends\n"
    assert stop(program, patience_s=30.0), "it has ended already"


def test_a_deaf_program_is_killed_with_what_it_started(tmp_path: Path, environment: dict[str, str]) -> None:
    programs = [Program("script", [str(tmp_path / kind), kind], environment=environment) for kind in ("deaf", "good")]
    found = [pid for kind in ("deaf", "good") for pid in pids(tmp_path / kind)]
    assert not stop(*programs, patience_s=2.0)
    assert [program.returncode for program in programs] == [-signal.SIGKILL, 0]
    assert not any(map(alive, found))


def test_what_a_program_left_when_it_died_is_killed(tmp_path: Path, environment: dict[str, str]) -> None:
    program = Program("script", [str(tmp_path / "report"), "good"], environment=environment)
    process, its = pids(tmp_path / "report")
    os.kill(process, signal.SIGKILL)
    program.wait(30)
    assert alive(its)
    assert stop(program, patience_s=30.0)
    assert not alive(its)


@pytest.fixture
def quick(tmp_path: Path, environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Restarter]:
    monkeypatch.setattr(restarter_module, "_FIRST_WAIT_S", 0.1)
    restarter = Restarter("one", "script", [str(tmp_path / "report"), "good"], tmp_path / "log", environment)
    yield restarter
    stop_all([restarter], 30.0)


def test_a_program_that_ends_is_started_again(tmp_path: Path, quick: Restarter) -> None:
    assert quick.uptime_s() == 0.0
    quick.start()
    first, _ = pids(tmp_path / "report")
    assert quick.check() and quick.uptime_s() > 0
    os.kill(first, signal.SIGKILL)
    wait_until(lambda: not quick.check(), 30, "its end is seen")
    assert quick.status == -signal.SIGKILL and quick.restarts == 0
    wait_until(quick.check, 30, "it is started again")
    again, _ = pids(tmp_path / "report")
    assert again != first and quick.restarts == 1
    assert stop_all([quick], 30.0)
    assert quick.program is None and quick.status == 0 and not alive(again)


def test_a_start_that_fails_is_tried_again(tmp_path: Path, quick: Restarter) -> None:
    quick.start()
    first, _ = pids(tmp_path / "report")
    quick.log = tmp_path / "missing" / "log"
    os.kill(first, signal.SIGKILL)
    wait_until(lambda: (quick.check(), quick.restarts == 2)[1], 30, "two tries")
    assert quick.program is None
    quick.log.parent.mkdir()
    wait_until(quick.check, 30, "it is started again")


def test_the_second_wait_is_longer(
    quick: Restarter, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quick, "_module", "no_such_module_at_all")
    quick.start()
    wait_until(lambda: not quick.check() and quick.restarts == 1, 60, "it ended again")
    waits = [record.args[2] for record in caplog.records if "starts again in" in record.message and record.args]
    assert waits[:2] == [0.1, 0.2]
    assert f"see {quick.log}" in caplog.text and "No module named" in quick.log.read_text()
