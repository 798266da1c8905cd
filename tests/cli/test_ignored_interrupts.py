"""Commands started with SIGINT ignored, as a shell starts `command &` in a script, still stop in good order."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from epics_env import EpicsEnv, wait_until

from ptychostream.scans.scan import Scan
from ptychostream.scans.scan_writer import write_scan

pytestmark = pytest.mark.server

COMMANDS = {
    "agent": ["agent", "--config", "agent.toml"],
    "beamline": ["beamline", "--prefix", "s:", "--frames", "50"],
    "bench": ["bench", "stream", "--engine", "none", "--seconds", "60"],
    "cluster": ["cluster", "cluster.toml", "--run", "collector"],
    "ioc": ["ioc", "--prefix", "t:", "--input-pv", "no:Image", "--engine", "none"],
    "record": ["record", "no:Image", "{scan}.h5"],
    "record --raw": ["record", "--raw", "no:Image", "raw.h5"],
    "reconstruct": ["reconstruct", "scan.h5", "-o", "out.h5", "--iterations", "1000000", "--engine", "epie"],
    "replay": ["replay", "scan.h5", "--repeat", "--rate", "20"],
}
READY = {
    "agent": "works in",
    "beamline": "",
    "bench": "",
    "cluster": "started",
    "ioc": "serv",
    "record": "",
    "record --raw": "waited for",
    "reconstruct": "",
    "replay": "serving",
}
AGENT = """
prefix = "t:"
work = "work"
[folder]
files = "scans/{scan}.h5"
poll_s = 1
[runner]
preload = []
"""


def handles_interrupts(pid: int) -> bool:
    """Whether a handler of the process catches SIGINT."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    caught = next(int(line.split()[1], 16) for line in lines if line.startswith("SigCgt"))
    return bool(caught >> (signal.SIGINT - 1) & 1)


def ignore_interrupts() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)


@pytest.mark.parametrize("name", COMMANDS)
def test_it_stops_in_good_order(name: str, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    counts = rng.poisson(5, (40, 16, 16)).astype(np.uint16)
    write_scan(tmp_path / "scan.h5", Scan("1", counts, rng.normal(0, 1e-6, (40, 2)), 1e4, 1.0, 1e-4))
    (tmp_path / "agent.toml").write_text(AGENT)
    (tmp_path / "cluster.toml").write_text('prefix = "t:"\n[source]\nchannel = "no:Image"\n')
    with EpicsEnv() as env, (tmp_path / "out").open("w") as out:
        command = [sys.executable, "-m", "ptychostream", *COMMANDS[name]]
        process = subprocess.Popen(
            command,
            cwd=tmp_path,
            env=env.cluster_env(),
            stdout=out,
            stderr=subprocess.STDOUT,
            preexec_fn=ignore_interrupts,
            start_new_session=True,
        )
        try:
            said = tmp_path / "out"
            wait_until(lambda: handles_interrupts(process.pid), 60, said.read_text)
            wait_until(lambda: READY[name] in said.read_text(), 60, said.read_text)
            process.send_signal(signal.SIGINT)
            status = process.wait(60)
        finally:
            process.kill()
            process.wait()
    # CPython ends itself by SIGINT, which a shell shows as 130 too, if the interrupt came within an `exec` of an import
    assert status in (0, 1, 130) or (status == -signal.SIGINT and "interrupted" in said.read_text()), said.read_text()
    assert "Traceback" not in said.read_text()
    wait_until(lambda: not of_session(process.pid), 30, lambda: json.dumps(of_session(process.pid)))


def of_session(session: int) -> list[str]:
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
            if int(fields[3]) == session and fields[0] != "Z":
                found.append((stat.parent / "cmdline").read_text())
        except OSError:
            continue
    return found


BOTH = """
import os, signal, threading
from ptychostream.processes.stopping import interrupt_on_signals, stop_on_signals

for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, signal.SIG_IGN)
    try:
        with interrupt_on_signals():
            os.kill(os.getpid(), number)
            threading.Event().wait(30)
    except KeyboardInterrupt:
        print("interrupted")
    with stop_on_signals() as stop:
        os.kill(os.getpid(), number)
        print("stopped" if stop.wait(30) else "not stopped")
    print("ignored again" if signal.getsignal(number) is signal.SIG_IGN else "another handler")
"""


def test_both_signals_interrupt_where_they_were_ignored() -> None:
    done = subprocess.run([sys.executable, "-c", BOTH], capture_output=True, text=True, timeout=90, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split("\n")[:-1] == ["interrupted", "stopped", "ignored again"] * 2


KEPT = """
import os, signal
from ptychostream.processes.stopping import interrupt_on_signals

seen = []
signal.signal(signal.SIGTERM, lambda number, _: seen.append(number))
with interrupt_on_signals():
    os.kill(os.getpid(), signal.SIGTERM)
print("kept" if seen == [signal.SIGTERM] else seen)
"""


def test_a_handler_that_is_there_is_kept() -> None:
    """In a process of its own: a handler that is not kept would end the tests."""
    done = subprocess.run([sys.executable, "-c", KEPT], capture_output=True, text=True, timeout=90, check=False)
    assert (done.returncode, done.stdout) == (0, "kept\n"), done.stderr
