"""Runs each heavy step in its own process: on this machine, or through Parsl on a cluster."""

from __future__ import annotations

import logging
import threading
from abc import ABC, abstractmethod
from concurrent.futures import Future
from itertools import count
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from ptychostream.config import Settings
from ptychostream.errors import AgentError, PtychostreamError
from ptychostream.hpc_agent.running.fork_server import ForkServer
from ptychostream.hpc_agent.running.parsl_settings import ParslSettings
from ptychostream.hpc_agent.running.runner_process import (
    Progress,
    ProgressFile,
    StepJob,
    prepare,
    run_job,
    start_plain,
    variables,
)
from ptychostream.processes.hardware import cores
from ptychostream.processes.program import GroupLeader
from ptychostream.scans.phase_file import file_stem

log = logging.getLogger(__name__)

STEPS_MODULE = "ptychostream.hpc_agent.steps"
_LOADED = tuple(
    f"ptychostream.hpc_agent.steps.{step}_step" for step in ("collect", "reconstruct", "label", "judge", "train")
)


class RunnerSettings(Settings):
    """How steps are run.

    Attributes
    ----------
    kind
        "local": child processes of the agent; "parsl": through Parsl, see `parsl`.
    module
        The module with the steps, run as `python -m module NAME ARGUMENTS.json RESULT.json --progress FILE`.
    nice
        Niceness of the steps; None: 10 on the agent's machine, 0 on a cluster's node.
    threads
        Number of threads of their libraries; None: all cores but one on the agent's machine, all on a cluster's node.
    timeout_s, timeouts_s
        A step that takes longer is killed: a limit for all steps, and limits by step name.
    preload
        Modules that the fork server of local steps loads once. `[]`: no fork server; each step starts an interpreter
        and loads what it needs. None: the modules of our own steps.
    parsl
        See `ParslSettings`.
    """

    kind: Literal["local", "parsl"] = "local"
    module: str = STEPS_MODULE
    nice: int | None = Field(None, ge=0, le=19)
    threads: int | None = Field(None, ge=1)
    timeout_s: float = Field(4 * 3600.0, gt=0)
    timeouts_s: dict[str, float] = {}
    preload: tuple[str, ...] | None = None
    parsl: ParslSettings = ParslSettings()

    @property
    def elsewhere(self) -> bool:
        """Whether the steps run on other machines."""
        return self.kind == "parsl" and self.parsl.provider != "local"

    @property
    def loaded(self) -> tuple[str, ...]:
        """The modules that the fork server loads."""
        if self.preload is not None:
            return self.preload
        return _LOADED if self.module == STEPS_MODULE else ()

    def arguments(self) -> dict[str, int]:
        """The settings that the steps get as arguments."""
        nice = self.nice if self.nice is not None else (0 if self.elsewhere else 10)
        threads = self.threads if self.threads is not None or self.elsewhere else max(1, cores() - 1)
        return {"nice": nice} | ({} if threads is None else {"threads": threads})


class StepFuture(Future[dict[str, Any]]):
    """The future result of a step. `cancel` also ends a step that runs."""

    def __init__(self) -> None:
        super().__init__()
        self.stopped = threading.Event()

    def cancel(self) -> bool:
        """Ask for the step's end; the future ends with an AgentError."""
        self.stopped.set()
        return not self.done()


class StepRunner(ABC):
    """Runs steps. Each has its own folder, and a thread that watches it.

    Parameters
    ----------
    settings
        See `RunnerSettings`.
    folder
        The work folder. The files of a step of scan `key` are in `scans/<key>/<step>-<n>`.
    """

    def __init__(self, settings: RunnerSettings, folder: Path) -> None:
        self._settings = settings
        self._folder = folder
        self._running: dict[threading.Thread, StepFuture] = {}
        self._lock = threading.Lock()
        self._closed = False

    def submit(
        self, step: str, arguments: dict[str, Any], on_progress: Progress | None = None
    ) -> Future[dict[str, Any]]:
        """Begin a step.

        The future gives the result, raises the error that the step raised, or raises an AgentError if the step did not
        finish: killed, crashed, too slow.
        """
        job = self._job(step, str(arguments.get("key", "")))
        future = StepFuture()
        thread = threading.Thread(
            target=self._watch, args=(future, job, arguments, on_progress), name=f"step {step}", daemon=True
        )
        with self._lock:
            if self._closed:
                raise AgentError(f"the step {step} is not begun", where="runner", remedy="it is closed")
            self._running[thread] = future
        thread.start()
        return future

    def close(self) -> None:
        """End every running step; returns when they have ended."""
        with self._lock:
            self._closed = True
            running = dict(self._running)
        for thread, future in running.items():
            future.cancel()
            if thread is not threading.current_thread():
                thread.join()

    def start_here(self, job: StepJob) -> GroupLeader:
        """Start a prepared job on this machine, wherever other steps run. Raises OSError."""
        return start_plain(job)

    def _job(self, step: str, key: str) -> StepJob:
        beginning = self._folder / "scans" / file_stem(key)
        folder = next(path for number in count(1) if not (path := beginning / f"{step}-{number}").exists())
        timeout_s = self._settings.timeouts_s.get(step, self._settings.timeout_s)
        return StepJob(
            self._settings.module, step, str(folder.resolve()), timeout_s, self._settings.arguments().get("threads")
        )

    def _watch(self, future: StepFuture, job: StepJob, arguments: dict[str, Any], on_progress: Progress | None) -> None:
        future.set_running_or_notify_cancel()
        try:
            prepare(job, {**arguments, **self._settings.arguments()})
            progress = ProgressFile(job.progress, on_progress)
            result = self._run(future, job, progress)
            progress.look()
            future.set_result(result)
        except PtychostreamError as error:
            future.set_exception(error)
        except Exception as error:  # the thread's outermost: the future gets the error
            log.exception("the step %s failed", job.step)
            future.set_exception(error)
        finally:
            with self._lock:
                del self._running[threading.current_thread()]

    @abstractmethod
    def _run(self, future: StepFuture, job: StepJob, progress: ProgressFile) -> dict[str, Any]:
        """Run a prepared step to its end; `future.stopped` ends it. Raises as `run_job`."""


class LocalRunner(StepRunner):
    """Steps as children of this process, or forked from one that has loaded what they need."""

    def __init__(self, settings: RunnerSettings, folder: Path) -> None:
        super().__init__(settings, folder)
        self._server: ForkServer | None = None
        if settings.loaded:
            told = settings.arguments()
            try:
                self._server = ForkServer(settings.loaded, told["nice"], variables(told.get("threads")))
            except OSError as error:
                log.warning("every step starts an interpreter of its own: %s", error)

    def close(self) -> None:
        """End every step that runs, and the process from which they are forked."""
        super().close()
        if self._server is not None:
            self._server.close()

    def _run(self, future: StepFuture, job: StepJob, progress: ProgressFile) -> dict[str, Any]:
        return run_job(job, lambda: "was given up" if future.stopped.is_set() else "", progress.look, self.start_here)

    def start_here(self, job: StepJob) -> GroupLeader:
        """Fork the step, or where that fails start an interpreter for it. Raises OSError."""
        if self._server is not None:
            try:
                return self._server.start(job.words, job.log)
            except OSError as error:
                log.warning("the step %s starts an interpreter of its own: %s", job.step, error)
        return start_plain(job)


def make_runner(settings: RunnerSettings, folder: Path) -> StepRunner:
    """The runner that is configured.

    Raises
    ------
    ConfigError
        Parsl is configured but not installed.
    """
    if settings.kind == "local":
        return LocalRunner(settings, folder)
    from ptychostream.hpc_agent.running.parsl_runner import ParslRunner

    return ParslRunner(settings, folder)
