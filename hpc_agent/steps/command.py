"""The agent's heavy steps, each in a process of its own, here or on a cluster's node.

`python -m ptychostream.hpc_agent.steps NAME ARGUMENTS.json RESULT.json [--progress FILE]`

Every step may be begun again at any time: what is finished is returned, what was written in part is written anew.
Arguments and results are plain values and paths. Besides a step's own arguments, `threads` says how many it may use
and `nice` how far it stands back. What a step raises of ptychostream's own errors is written to RESULT.json, see
`step_errors`, and the process ends with `FAILED`; anything else is a fault of the program or the machine, and ends it
with a traceback and another code.
"""

from __future__ import annotations

import argparse
import importlib
import inspect
import json
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ptychostream.errors import ConfigError, PtychostreamError
from ptychostream.hpc_agent.running.step_errors import pack_error
from ptychostream.hpc_agent.steps.step_parts import write_json
from ptychostream.processes.niceness import stand_back

STEPS = ("collect", "reconstruct", "label", "judge", "train")
FAILED = 3
"""Exit status of a step that says why it cannot be done."""

_log = logging.getLogger(__name__)


def step_function(name: str) -> Callable[..., dict[str, Any]]:
    """A step by its name; loaded when it is asked for, as not every step needs torch.

    Raises
    ------
    ConfigError
        There is no such step.
    """
    if name not in STEPS:
        raise ConfigError(f"no step {name!r}", where="steps", remedy=f"one of {', '.join(STEPS)}")
    module = importlib.import_module(f"ptychostream.hpc_agent.steps.{name}_step")
    function: Callable[..., dict[str, Any]] = getattr(module, f"{name}_step")
    return function


def main(argv: Sequence[str] | None = None) -> int:
    """Run one step; returns the exit status."""
    words = list(sys.argv[1:] if argv is None else argv)
    parser = argparse.ArgumentParser(prog="python -m ptychostream.hpc_agent.steps", description=__doc__.split("\n")[0])
    parser.add_argument("name", choices=STEPS)
    parser.add_argument("arguments", type=Path, metavar="ARGUMENTS.json")
    parser.add_argument("result", type=Path, metavar="RESULT.json")
    parser.add_argument("--progress", type=Path, metavar="FILE", help="JSON, written anew as the step goes on")
    parser.add_argument("--together", action="store_true", help=argparse.SUPPRESS)  # one of several, by torchrun
    asked = parser.parse_args(words)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s: %(message)s")
    # A training takes an interrupt for the wish to keep what it has so far; a step that is stopped must leave no model.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)
    if not asked.together:
        asked.result.unlink(missing_ok=True)
    try:
        arguments = _read(asked.arguments)
        nice, threads = arguments.pop("nice", 0), arguments.pop("threads", None)
        if asked.together:
            stand_back(0)  # as far as its parent does; torchrun gives it a session of its own
        else:
            _stand_back(nice, threads)
        if asked.name == "train" and not asked.together:
            from ptychostream.hpc_agent.steps.train_step import TrainJob, prepare_training

            job = TrainJob(**arguments)
            if job.processes > 1:
                prepare_training(job)
                return _together(job.processes, words, asked.result)
        result = _run(asked.name, arguments, asked.progress)
        if result:
            write_json(asked.result, result)
    except PtychostreamError as error:
        _log.error("%s", error)
        write_json(asked.result, pack_error(error))
        return FAILED
    return 0


def _run(name: str, arguments: dict[str, Any], progress: Path | None) -> dict[str, Any]:
    function = step_function(name)
    if progress is not None and "progress" in inspect.signature(function).parameters:
        arguments["progress"] = lambda content: write_json(progress, content)
    return function(**arguments)


def _stand_back(nice: int, threads: int | None) -> None:
    """Give way to what is more urgent; the edge may run on the same machine.

    torch and numba read how many threads they may start when they are loaded, which they are not yet where the step was
    not forked from a process that knew of it; processes that train together take it over.
    """
    stand_back(nice)
    if threads is not None:
        for name in ("OMP_NUM_THREADS", "NUMBA_NUM_THREADS"):
            os.environ[name] = str(max(1, threads))


def _together(number: int, words: list[str], result: Path) -> int:
    """The same step in several processes that train one network, each on a device of its own."""
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(number)]
    ended = subprocess.run([*torchrun, "-m", "ptychostream.hpc_agent.steps", *words, "--together"], check=False)
    if ended.returncode and result.exists():
        return FAILED
    return ended.returncode


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"cannot be read: {error}", where=str(path), remedy="give a step's arguments") from error
    if not isinstance(content, dict):
        raise ConfigError("not an object", where=str(path), remedy="give a step's arguments by name")
    return content
