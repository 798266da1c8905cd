"""Steps through Parsl, on this machine or on a cluster's nodes, with their files on the shared disk."""

from __future__ import annotations

import logging
import os
import secrets
import threading
import time
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ptychostream.errors import AgentError, PtychostreamError
from ptychostream.hpc_agent.running.parsl_config import make_config
from ptychostream.hpc_agent.running.parsl_step import STOP, run_on_node
from ptychostream.hpc_agent.running.runner import RunnerSettings, StepFuture, StepRunner
from ptychostream.hpc_agent.running.runner_process import ProgressFile, StepJob
from ptychostream.hpc_agent.running.step_errors import unpack_error
from ptychostream.storage.atomic import write_bytes_atomic

from parsl import DataFlowKernel, python_app  # isort: skip - after parsl_config, which says what to do without it

log = logging.getLogger(__name__)

_LOOK_S = 0.2
_SIGN_S = 5.0
_GIVE_UP_S = 15.0


class ParslRunner(StepRunner):
    """See `StepRunner`. Parsl starts with the first step.

    A step watches two files on the shared disk: one that asks it to end, and one that the agent touches while it runs.
    So a step ends when it is cancelled, when the agent is dead, and when another agent uses the work folder.
    """

    def __init__(self, settings: RunnerSettings, folder: Path) -> None:
        super().__init__(settings, folder)
        self._parsl = (folder / "parsl").resolve()
        self._sign = self._parsl / "agent"
        self._agent = secrets.token_hex(8)
        self._kernel: DataFlowKernel | None = None
        self._kernel_lock = threading.Lock()
        self._closing = threading.Event()
        self._signs = threading.Thread(target=self._give_signs, name="sign of life", daemon=True)

    def close(self) -> None:
        """End every running step and every job."""
        super().close()
        self._closing.set()
        if self._signs.ident is not None:
            self._signs.join()
        with self._kernel_lock:
            self._end_kernel()

    def _run(self, future: StepFuture, job: StepJob, progress: ProgressFile) -> dict[str, Any]:
        task = self._begin(job)
        given_up: float | None = None
        while not task.done():
            with suppress(FutureTimeout):
                task.exception(_LOOK_S)
            progress.look()
            if future.stopped.is_set() and given_up is None:
                given_up = time.monotonic()
                with suppress(OSError):
                    (Path(job.folder) / STOP).touch()
            if given_up is not None and time.monotonic() - given_up > _GIVE_UP_S:
                raise AgentError(f"the step {job.step} was given up", where=job.folder)  # its job ends with the runner
        error = task.exception()
        if error is not None:
            what = f"the step {job.step} was lost: {type(error).__name__}: {error}"
            remedy = f"see what the jobs wrote, under {self._parsl}"
            raise AgentError(what, where=job.folder, remedy=remedy) from error
        outcome: dict[str, Any] = task.result()
        said: PtychostreamError | None = unpack_error(outcome)
        if said is not None:
            raise said
        return dict(outcome["result"])

    def _begin(self, job: StepJob) -> Future[dict[str, Any]]:
        with self._kernel_lock:
            if self._kernel is not None and _broken(self._kernel):
                log.warning("Parsl's executor has given up: it is started again")
                self._end_kernel()
            try:
                if self._kernel is None:
                    if self._signs.ident is None:
                        self._parsl.mkdir(parents=True, exist_ok=True)
                        write_bytes_atomic(self._sign, self._agent.encode())
                        self._signs.start()
                    self._kernel = DataFlowKernel(make_config(self._settings.parsl, self._parsl))
                app = python_app(run_on_node, data_flow_kernel=self._kernel)
                task: Future[dict[str, Any]] = app(
                    asdict(job), str(self._sign), self._agent, self._settings.parsl.orphan_s
                )
            except PtychostreamError:
                raise
            except Exception as error:  # Parsl names no base class
                what = f"Parsl does not take the step {job.step}: {type(error).__name__}: {error}"
                raise AgentError(what, where="runner.parsl", remedy="check that section, and the scheduler") from error
        return task

    def _end_kernel(self) -> None:
        kernel, self._kernel = self._kernel, None
        if kernel is not None:
            try:
                kernel.cleanup()
            except Exception:  # the agent must end nevertheless
                log.exception("Parsl did not end cleanly")

    def _give_signs(self) -> None:
        while not self._closing.wait(_SIGN_S):
            try:
                os.utime(self._sign)
            except OSError as error:
                log.warning("%s: %s", self._sign, error)


def _broken(kernel: DataFlowKernel) -> bool:
    return any(getattr(executor, "bad_state_is_set", False) for executor in kernel.executors.values())
