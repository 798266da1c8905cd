"""A real `ptychostream agent` whose disk is full: it stays, keeps its lease, and goes on by itself."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from small_disks import fill, small_disk

from ptychostream.hpc_agent.journal.journal import Journal
from ptychostream.hpc_agent.journal.lease import NAME, read

pytestmark = [pytest.mark.server, pytest.mark.timeout(280)]

CONFIGURATION = """
prefix = "full:"
work = {work}
least_free_mb = 0
[folder]
files = {files}
quiet_s = 0
poll_s = 1
[collect]
timeout_s = 0.5
quiet_s = 0
[runner]
preload = []
"""


def test_an_agent_waits_for_room_and_goes_on(tmp_path: Path) -> None:
    log, scans = tmp_path / "log", tmp_path / "scans"
    scans.mkdir()

    def until(true: Callable[[], object]) -> None:
        deadline = time.monotonic() + 100
        while not true():
            assert time.monotonic() < deadline and agent.poll() is None, log.read_text()
            time.sleep(0.1)

    def add(name: str) -> None:
        (scans / f"{name}.npz").write_bytes(b"no scan")

    with small_disk(tmp_path / "work") as work:
        configuration = tmp_path / "agent.toml"
        values = {"work": json.dumps(str(work)), "files": json.dumps(str(scans / "{scan}.npz"))}
        configuration.write_text(CONFIGURATION.format(**values))
        command = [sys.executable, "-m", "ptychostream", "agent", "--config", str(configuration)]
        with log.open("w") as output, subprocess.Popen(command, stdout=output, stderr=output) as agent:
            try:
                until(lambda: (work / "journal-copies").exists())  # the first look into the folder is over
                full = fill(work)
                for number in range(4):
                    add(f"long{'g' * 150}{number}")
                until(lambda: "work waits until this is over" in log.read_text())
                counts = {read(work / NAME)["count"]}
                began = time.monotonic()
                while time.monotonic() - began < 25:
                    counts.add(read(work / NAME)["count"])
                    time.sleep(0.2)
                    assert agent.poll() is None
                assert len(counts) >= 2, "the lease is renewed every 10 s"
                full.unlink()
                until(lambda: "work goes on" in log.read_text())
                with closing(Journal(work / "journal.sqlite")) as journal:
                    until(lambda: len(scans_ended(journal)) == 4)
                    assert all("failed" in outcome for outcome in scans_ended(journal)), "none of them is a scan"
            finally:
                agent.send_signal(signal.SIGTERM)
                assert agent.wait(30) == 0, log.read_text()
        assert not (work / NAME).exists()


def scans_ended(journal: Journal) -> list[str]:
    return [scan.outcome for scan in journal.scans() if scan.outcome]
