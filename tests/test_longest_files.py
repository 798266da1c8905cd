"""The longest test files begin first: `longest_files.txt` names files that are there, and a run follows it."""

from __future__ import annotations

import subprocess
import sys

import pytest
from folders import ROOT

LONGEST = (ROOT / "tests/longest_files.txt").read_text("utf-8").split()


def test_the_files_are_there_and_each_is_named_once() -> None:
    assert [name for name in LONGEST if not (ROOT / "tests" / name).is_file()] == []
    assert len(set(LONGEST)) == len(LONGEST)


@pytest.mark.server
def test_a_run_begins_with_the_longest_files() -> None:
    files = [f"tests/{name}" for name in ("test_errors.py", LONGEST[1], LONGEST[0])]
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider", *files]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=200)
    begun = [line.partition("::")[0] for line in done.stdout.splitlines() if "::" in line]
    assert list(dict.fromkeys(begun)) == list(reversed(files))
