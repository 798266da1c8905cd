"""What every test run begins with, so that no test depends on how the run was started."""

from __future__ import annotations

import gc
import os
import re
import signal
import sys
from pathlib import Path

# pvapy first: a process that imports it after p4p or softioc may crash when it ends, and tests import both.
import pvaccess  # noqa: F401
import pytest
from hypothesis import settings
from standstill import standstill

# Compiled modules are kept for the next run and for every child process, whatever the environment says: without them
# each of several hundred children compiles the package again.
sys.dont_write_bytecode = False
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

# A background shell starts its jobs with SIGINT ignored, and children inherit that.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# The time that an example takes says how busy the machine is.
settings.register_profile("ptychostream", deadline=None)
settings.load_profile("ptychostream")

standstill.watch()

# What imports leave behind stays for the whole run: the garbage collector need not look at it again and again.
gc.disable()


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """A module whose every test is left out by its marker is not even imported."""
    if collection_path.suffix != ".py":
        return None
    marks = re.findall(r"^pytestmark = pytest\.mark\.(\w+)$", collection_path.read_text("utf-8"), re.MULTILINE)
    return any(f"not {mark}" in config.getoption("markexpr") for mark in marks) or None


def pytest_collection_finish() -> None:
    gc.enable()
    gc.freeze()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """A failure of a run in which the machine stood still is looked at with other eyes."""
    for moment in standstill.seen:
        terminalreporter.write_line(f"the machine stood still for {moment}")
