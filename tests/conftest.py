"""What every test run begins with, so that no test depends on how the run was started."""

from __future__ import annotations

import gc
import logging
import os
import re
import signal
import sys
from pathlib import Path

# pvapy first: a process that imports it after p4p or softioc may crash when it ends, and tests import both.
import pvaccess  # noqa: F401

# isort: split
# These look at every module that is loaded, for each call on the stack, while they are imported: there are few yet.
import p4p  # noqa: F401
import softioc.softioc  # noqa: F401

# isort: split
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

_HERE = Path(__file__).parent
LONGEST = [_HERE / name for name in (_HERE / "longest_files.txt").read_text("utf-8").split()]
"""Files of half a minute and more beside other work, the longest one first."""

# What imports leave behind stays for the whole run: the garbage collector need not look at it again and again.
gc.disable()


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """A module whose every test is left out by its marker is not even imported."""
    if collection_path.suffix != ".py":
        return None
    said = re.search(r"^pytestmark = (\[.*?\]\n|[^\n]*)", collection_path.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    marks = re.findall(r"pytest\.mark\.(\w+)", said[1]) if said else []
    return any(f"not {mark}" in config.getoption("markexpr") for mark in marks) or None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files begin first, so that no process is left with one of them at the end.

    `--no-loadscope-reorder` keeps this order where pytest-xdist distributes files.
    """
    places = {path: place for place, path in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get(item.path, len(places)))


def pytest_collection_finish() -> None:
    # pytest takes its handlers to each logger that does not propagate and back, six times a test: torch has forty.
    for name, logger in logging.root.manager.loggerDict.items():
        if name.partition(".")[0] == "torch" and isinstance(logger, logging.Logger):
            logger.propagate = True
    gc.enable()
    gc.freeze()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """A failure of a run in which the machine stood still is looked at with other eyes."""
    for moment in standstill.seen:
        terminalreporter.write_line(f"the machine stood still for {moment}")
