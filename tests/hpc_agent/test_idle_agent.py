"""An agent that has nothing to do leaves its journal alone, and overwrites its lease in place."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from ptychostream.hpc_agent.agent import Agent
from ptychostream.hpc_agent.edge.switches import Switches
from ptychostream.hpc_agent.journal.journal import Journal
from ptychostream.hpc_agent.journal.lease import NAME, read
from ptychostream.hpc_agent.journal.policy import PolicySettings
from ptychostream.hpc_agent.journal.policy_keeper import PolicyKeeper

CONFIGURATION = """
prefix = "idle:"
work = {work!r}
[folder]
files = {files!r}
poll_s = 1
[runner]
preload = []
"""


class Commits:
    """Counts the commits that other connections make to an SQLite file, as seen by `look`."""

    def __init__(self, file: sqlite3.Connection) -> None:
        self._file = file
        self._version = self._read()
        self.count = 0

    def _read(self) -> int:
        return int(self._file.execute("PRAGMA data_version").fetchone()[0])

    def look(self) -> None:
        before, self._version = self._version, self._read()
        self.count += self._version != before


@contextmanager
def commits_to(journal: Path) -> Iterator[Commits]:
    with closing(sqlite3.connect(journal)) as file:
        yield Commits(file)


class QuietEdge:
    """An edge without a model that is reached and changes nothing."""

    def switches(self) -> Switches:
        return Switches()

    def live_model(self) -> str | None:
        return ""

    def report(self, **values: Any) -> None:
        self.last_scan = values["LastScan"]


def test_an_idle_agent_commits_nothing(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.sqlite")
    for number in range(50):
        journal.enter(str(number), {}, 0.0)
        journal.close_scan(str(number), "reconstructed")
    seconds = 0.0
    policy = PolicyKeeper(journal, PolicySettings, lambda _: None)
    edge = QuietEdge()
    agent = Agent(journal, policy, None, edge, lambda _: None, lambda _: "", clock=lambda: seconds)  # type: ignore[arg-type]
    with commits_to(tmp_path / "journal.sqlite") as commits, closing(journal):
        for _ in range(600):
            agent.tick()
            commits.look()
            seconds += 0.5
    assert commits.count == 0, "in 300 s"
    assert edge.last_scan == "49"


@pytest.mark.server
def test_a_real_idle_agent_leaves_the_disk_alone(tmp_path: Path) -> None:
    work = tmp_path / "work"
    configuration = tmp_path / "agent.toml"
    configuration.write_text(CONFIGURATION.format(work=str(work), files=str(tmp_path / "{scan}.h5")))
    command = [sys.executable, "-m", "ptychostream", "agent", "--config", str(configuration)]
    agent = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    try:
        deadline = time.monotonic() + 180
        while not read(work / NAME):
            assert time.monotonic() < deadline and agent.poll() is None
            time.sleep(0.1)
        with commits_to(work / "journal.sqlite") as commits:
            for _ in range(80):
                time.sleep(0.1)
                commits.look()
        assert agent.poll() is None
        assert commits.count <= 1, "only what the folder held at first"
    finally:
        agent.terminate()
        assert agent.wait(30) == 0
        assert agent.stdout is not None
        agent.stdout.close()
