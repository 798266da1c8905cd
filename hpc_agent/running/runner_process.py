"""Runs one step in its own process and reads its result, or says why there is none."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ptychostream.errors import AgentError, PtychostreamError
from ptychostream.hpc_agent.running.step_errors import unpack_error
from ptychostream.processes.program import GroupLeader, Program, stop
from ptychostream.storage.atomic import FULL, cannot_be_written, write_bytes_atomic

Progress = Callable[[dict[str, Any]], None]

_FAILED = 3  # exit status of a step that reports why it cannot be done
_LOOK_S = 0.1
_STOP_S = 5.0  # between SIGTERM and SIGKILL
_LAST_LINES = 5
_LAST_BYTES = 4096
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")


@dataclass(frozen=True)
class StepJob:
    """A step to run, and where its files are.

    Attributes
    ----------
    module, step
        `python -m module step arguments.json result.json --progress progress.json`.
    folder
        Folder of those files and of the log.
    timeout_s
        The step is killed after that time.
    threads
        Number of threads of its libraries; None: their default.
    """

    module: str
    step: str
    folder: str
    timeout_s: float
    threads: int | None = None

    @property
    def words(self) -> list[str]:
        """Module and arguments."""
        return [self.module, self.step, str(self.arguments), str(self.result), "--progress", str(self.progress)]

    @property
    def arguments(self) -> Path:
        return Path(self.folder) / "arguments.json"

    @property
    def result(self) -> Path:
        return Path(self.folder) / "result.json"

    @property
    def progress(self) -> Path:
        return Path(self.folder) / "progress.json"

    @property
    def log(self) -> Path:
        return Path(self.folder) / "log.txt"


def prepare(job: StepJob, arguments: dict[str, Any]) -> None:
    """Write the step's arguments; a folder without them is not left behind. Raises AgentError, DiskFullError."""
    folder = Path(job.folder)
    try:
        folder.mkdir(parents=True)
        try:
            write_bytes_atomic(job.arguments, json.dumps(arguments, indent=1).encode())
        except OSError:
            shutil.rmtree(folder, ignore_errors=True)
            raise
    except OSError as error:
        remedy = "check the work folder's permissions and free space"
        raise refused(job.folder, f"the step {job.step} cannot be prepared", remedy, error) from error


def refused(where: str, what: str, remedy: str, error: OSError) -> PtychostreamError:
    """The error to raise where the system refuses: DiskFullError where the disk is full, else AgentError."""
    if error.errno in FULL:
        return cannot_be_written(where, error)
    return AgentError(f"{what}: {error.strerror or error}", where=where, remedy=remedy)


def variables(threads: int | None) -> dict[str, str]:
    """Environment variables of a step whose libraries start `threads` threads; None: their default."""
    limits = {} if threads is None else dict.fromkeys(_THREADS, str(threads))
    return {**limits, "PYTHONUNBUFFERED": "1"}


def start_plain(job: StepJob) -> GroupLeader:
    """Start a step in an interpreter of its own. Raises OSError."""
    module, *arguments = job.words
    return Program(module, arguments, job.log, {**os.environ, **variables(job.threads)})


def run_job(
    job: StepJob,
    why_stop: Callable[[], str],
    look: Callable[[], None] = lambda: None,
    start: Callable[[StepJob], GroupLeader] = start_plain,
) -> dict[str, Any]:
    """Run a prepared job to its end; return its result.

    Parameters
    ----------
    why_stop
        Called ten times a second; a text that is not empty ends the step and says why.
    look
        Called equally often.
    start
        Starts the job.

    Raises
    ------
    PtychostreamError
        The error that the step reported.
    AgentError
        It was stopped, took too long, crashed, or was killed.
    """
    deadline = time.monotonic() + job.timeout_s
    try:
        process = start(job)
    except OSError as error:
        raise _failure(job, f"does not start: {error.strerror or error}") from error
    why = ""
    try:
        while process.poll() is None and not why:
            with suppress(subprocess.TimeoutExpired):
                process.wait(_LOOK_S)
            look()
            why = why_stop()
            if not why and time.monotonic() >= deadline:
                why = f"was not done within {job.timeout_s:.0f} s, and is killed"
        if why and process.poll() is None:
            raise _failure(job, why)
    finally:
        stop(process, patience_s=_STOP_S)
    return _result(job, process.wait())


def read_progress(path: Path) -> dict[str, Any] | None:
    """The progress that a step has written; None: nothing yet."""
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


class ProgressFile:
    """Passes on what a step writes to its progress file; call `look` regularly."""

    def __init__(self, path: Path, on_progress: Progress | None) -> None:
        self._path = path
        self._on_progress = on_progress
        self._last: dict[str, Any] | None = None

    def look(self) -> None:
        if self._on_progress is None:
            return
        found = read_progress(self._path)
        if found is not None and found != self._last:
            self._last = found
            self._on_progress(found)


def _result(job: StepJob, status: int) -> dict[str, Any]:
    try:
        found = json.loads(job.result.read_bytes())
    except (OSError, ValueError):
        found = None
    if status == 0 and isinstance(found, dict):
        return found
    if status == _FAILED and isinstance(found, dict):
        said: PtychostreamError | None = unpack_error(found)
        if said is not None:
            raise said
    if status < 0:
        raise _failure(job, f"was killed by {signal.Signals(-status).name}")
    raise _failure(job, f"ended with status {status}" if status else "left no result")


def _failure(job: StepJob, what: str) -> AgentError:
    lines = last_lines(job.log)
    said = f"; its last words: {lines}" if lines else ""
    return AgentError(f"the step {job.step} {what}{said}", where=str(job.log), remedy="see that log")


def last_lines(log: Path) -> str:
    """The end of a log on one line."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - _LAST_BYTES))
            text = file.read().decode(errors="replace")
    except OSError:
        return ""
    return " / ".join([line.strip() for line in text.splitlines() if line.strip()][-_LAST_LINES:])
