"""The tests; those that fail are run again, alone, when all others are done.

    .venv/bin/python .ci/tests.py [PYTEST ARGUMENTS]

Several hundred of the tests start servers and clients, and the machine of a CI run is not always there when it is
needed. A test that fails twice has failed. One that passes when it is run alone is named at the end: it is to be looked
at, but it does not stop the work of others. More than MOST failures are not looked at a second time.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

MOST = 6
TESTS_FAILED = 1
"""pytest's exit status where tests failed, and nothing else."""
FAILED = Path(".pytest_cache/v/cache/lastfailed")


def failures(cache: Path = FAILED) -> list[str]:
    """The tests that failed in the last run of pytest; empty where it does not say."""
    try:
        return sorted(json.loads(cache.read_text("utf-8")))
    except (OSError, ValueError):
        return []


def run(arguments: list[str]) -> int:
    """Run the tests, and those that failed once more. Returns the exit status."""
    FAILED.unlink(missing_ok=True)
    status = subprocess.run([sys.executable, "-m", "pytest", *arguments], check=False).returncode
    failed = failures()
    if status != TESTS_FAILED or not 0 < len(failed) <= MOST:
        return status
    print(f"\n{len(failed)} failed and run again alone:", *failed, sep="\n  ", flush=True)
    again = subprocess.run([sys.executable, "-m", "pytest", "-p", "no:xdist", *failed], check=False).returncode
    passed = [name for name in failed if name not in failures()] if again in (0, TESTS_FAILED) else []
    print(f"\n{len(passed)} of {len(failed)} passed alone:", *passed, sep="\n  ", flush=True)
    return again


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))
