"""`make test` runs what failed again, alone, and says so; what fails twice has failed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from folders import ROOT

pytestmark = [pytest.mark.server, pytest.mark.slow]

SOUND = "def test_sound(): pass\n"
ONCE = """
from pathlib import Path

def test_fails_once():
    seen = Path("seen")
    first = not seen.exists()
    seen.touch()
    assert not first
"""
ALWAYS = "def test_fails_always(): assert False\n"
BROKEN = "import nothing_of_this_name\n"
MANY = "import pytest\n@pytest.mark.parametrize('k', range(7))\ndef test_fails(k): assert False\n"


@pytest.mark.parametrize(
    ("texts", "status", "said", "not_said"),
    [
        ([SOUND], 0, ["1 passed"], ["again"]),
        ([SOUND, ONCE], 0, ["1 failed and run again alone", "1 of 1 passed alone", "test_fails_once"], []),
        ([ONCE, ALWAYS], 1, ["2 failed and run again alone", "1 of 2 passed alone"], []),
        ([SOUND, MANY], 1, ["7 failed"], ["again"]),
        ([SOUND, BROKEN], 2, ["1 error"], ["again"]),
    ],
    ids=["sound", "once", "always", "many", "broken"],
)
def test_what_failed_runs_once_more(
    tmp_path: Path, texts: list[str], status: int, said: list[str], not_said: list[str]
) -> None:
    for index, text in enumerate(texts):
        (tmp_path / f"test_part_{index}.py").write_text(text)
    command = [sys.executable, str(ROOT / ".ci" / "tests.py")]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == status, done.stdout + done.stderr
    for text in said:
        assert text in done.stdout
    for text in not_said:
        assert text not in done.stdout
