"""How far the agent's steps stand back, also where niceness counts within a session alone."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from ptychostream.processes import niceness

CODE = """
import os, sys
from ptychostream.processes.niceness import AUTOGROUP, stand_back
stand_back(int(sys.argv[1]))
print(os.getpriority(os.PRIO_PROCESS, 0), *(AUTOGROUP.read_text() if AUTOGROUP.exists() else "").split()[-1:])
"""
HERE = os.getpriority(os.PRIO_PROCESS, 0)
GROUPED = niceness.AUTOGROUP.exists()


def told(nice: int, leads: bool) -> tuple[int, list[str]]:
    """The niceness of a process, and that of its session where it has one."""
    command = [sys.executable, "-c", CODE, str(nice)]
    ended = subprocess.run(command, start_new_session=leads, capture_output=True, text=True, timeout=60, check=True)
    process, *session = ended.stdout.split()
    return int(process), session


def test_a_session_s_leader_takes_its_session_with_it() -> None:
    level = min(19, HERE + 6)
    assert told(level, leads=True) == (level, [str(level)] if GROUPED else [])
    # nobody is made more urgent than the one who started it
    assert told(0, leads=True) == (HERE, [str(HERE)] if GROUPED else [])


def test_the_session_of_others_is_left_alone() -> None:
    # the first sessions of a machine are in no group: the file is there and empty
    mine = niceness.AUTOGROUP.read_text().split()[-1:] if GROUPED else []
    level = min(19, HERE + 6)
    assert told(level, leads=False) == (level, mine)


def test_a_system_that_refuses_is_told_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(niceness, "AUTOGROUP", tmp_path)  # a folder cannot be written
    monkeypatch.setattr(niceness.os, "getsid", lambda _: os.getpid())
    niceness.stand_back(HERE)
    assert "niceness" in caplog.text and str(tmp_path) in caplog.text
