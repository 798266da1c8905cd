"""The agent's heavy steps, each in a process of its own, here or on a cluster's node.

`python -m ptychostream.hpc_agent.steps NAME ARGUMENTS.json RESULT.json [--progress FILE]`

A step may begin again at any time: a finished result is returned, an unfinished one is made again. Arguments and
results are plain values and paths. Besides a step's own arguments, `threads` is its number of threads and `nice` its
niceness. A PtychostreamError of a step is written to RESULT.json (see `step_errors`), and the process ends with
`FAILED`. Any other exception is a fault of the program or the machine, and ends the process with a traceback and
another status.
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
"""Exit status of a step that reports why it cannot be done."""

_log = logging.getLogger(__name__)


def step_function(name: str) -> Callable[..., dict[str, Any]]:
    """A step by its name. Its module is imported here, since not every step needs torch.

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
    parser.add_argument("--together", action="store_true", help=argparse.SUPPRESS)  # started by torchrun
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
            stand_back(0)  # the parent's niceness, for the session that torchrun made
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
    """Set niceness and number of threads; the edge may run on the same machine.

    torch and numba read the number of threads from the environment when they are loaded. A forked step has them loaded
    already, with the right number. Processes that train together inherit the variables.
    """
    stand_back(nice)
    if threads is not None:
        for name in ("OMP_NUM_THREADS", "NUMBA_NUM_THREADS"):
            os.environ[name] = str(max(1, threads))


def _together(number: int, words: list[str], result: Path) -> int:
    """Run the same step in several processes that train one network, each on its own device."""
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
