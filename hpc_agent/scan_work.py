"""What is done with one completed scan, step by step; each is journalled, and done once however often it is begun."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from ptychostream.config import Settings
from ptychostream.errors import AgentError, PtychostreamError
from ptychostream.hpc_agent.collect import Collected, ScanEvent
from ptychostream.hpc_agent.journal import Journal, ScanEntry, StepState
from ptychostream.hpc_agent.policy import (
    Event,
    Judged,
    Plan,
    ReconstructAsked,
    RetrainAsked,
    ScanCompleted,
)
from ptychostream.hpc_agent.policy_keeper import PolicyKeeper

_log = logging.getLogger(__name__)
_COMMANDS: dict[str, Event] = {
    "": ScanCompleted(),
    "reconstruct": ReconstructAsked(),
    "retrain": RetrainAsked(),
}
_LOOK_S = 0.5  # how often a wait looks whether the agent is to stop

Progress = Callable[[dict[str, Any]], None]


class Runner(Protocol):
    """Runs the heavy steps of `ptychostream.hpc_agent.steps`, here or on a cluster."""

    def submit(
        self, step: str, arguments: dict[str, Any], on_progress: Progress | None = None
    ) -> Future[dict[str, Any]]:
        """Begin a step. The future ends with its result, or with an AgentError that says why there is none."""
        ...


class Models(Protocol):
    """The model store, as far as a scan's work asks it."""

    def path_of(self, sha256: str) -> Path | None:
        """The ONNX file of a model; None: not in the store."""
        ...

    def checkpoint_of(self, sha256: str) -> Path | None:
        """Its weights for a warm start."""
        ...


class StoppedError(Exception):
    """The agent is to end; what was begun goes on at its next start."""


@dataclass(frozen=True)
class WorkSettings:
    """Where the work is done and how.

    Attributes
    ----------
    folder
        The work folder.
    attempts
        How often a step is tried that failed for a reason that may pass: a walltime, a lost node.
    reconstruct, train, label
        Options of the steps, as their modules take them.
    ceiling
        The SSIM that a perfect network would reach, below 1 where the references are noisy: mismatch = ceiling - SSIM.
    """

    folder: Path
    attempts: int = 3
    reconstruct: dict[str, Any] | None = None
    train: dict[str, Any] | None = None
    label: dict[str, Any] | None = None
    ceiling: float = 1.0


class ScanWork:
    """Works through scans, one at a time.

    Parameters
    ----------
    journal, runner, models, settings
        See there.
    collect
        Finds the scan's file; raises what `ptychostream.hpc_agent.collect.collect` raises.
    live_model
        sha256 of the model at the edge; None: the edge is not reached.
    policy
        Decides what is done.
    report
        Told what happens, for people: `report(message)`.
    on_progress
        Told a training's epochs and losses as they come.
    """

    def __init__(
        self,
        journal: Journal,
        runner: Runner,
        models: Models,
        settings: WorkSettings,
        *,
        collect: Callable[[ScanEvent], Collected],
        live_model: Callable[[], str | None],
        policy: PolicyKeeper,
        report: Callable[[str], None],
        on_progress: Progress,
    ) -> None:
        self._journal = journal
        self._runner = runner
        self._models = models
        self._settings = settings
        self._collect = collect
        self._live_model = live_model
        self._policy = policy
        self._report = report
        self._on_progress = on_progress

    def work(self, entry: ScanEntry, stop: threading.Event) -> str:
        """Do what the policy wants of a scan; returns its outcome, which is journalled too.

        Raises
        ------
        StoppedError
            `stop` was set: nothing is lost, and the scan stays open.
        """
        try:
            outcome = self._work(entry, stop)
        except PtychostreamError as error:
            _log.warning("scan %s: %s", entry.key, error)
            outcome = f"failed: {error}"
        self._journal.close_scan(entry.key, outcome)
        self._report(f"scan {entry.key}: {outcome}")
        return outcome

    def _work(self, entry: ScanEntry, stop: threading.Event) -> str:
        # An operator may bring a scan up again: its steps get names of their own then, so that they are done anew.
        again = f"#{entry.asked_times}" if entry.asked_times else ""
        event = _COMMANDS[entry.asked]
        plan, reason = self._policy.decide(entry.key, f"plan{again}", event)
        if not plan.reconstruct:
            return f"passed over: {reason}"
        collected = self._collected(entry)
        folder = self._settings.folder / "scans" / entry.key
        scan = {"scan": str(collected.path), "scan_options": _plain(vars(collected.options)), "key": entry.key}
        arguments = {**scan, "folder": str(folder), "options": self._settings.reconstruct or {}}
        anew = again if entry.asked == "reconstruct" else ""
        made = self._step(entry.key, f"reconstruct{anew}", stop, arguments, of="reconstruct")
        if made.get("diverged"):
            return f"the reconstruction diverged (R {made.get('r_factor', float('nan')):.3g}): no labels are made of it"
        scan["reconstruction"] = made["reconstruction"]
        outcome = "reconstructed"
        if plan.judge:
            mismatch = self._judge(entry.key, f"judge{again}", stop, scan)
            outcome = f"judged: mismatch {mismatch:.3f}"
            wanted, _ = self._policy.decide(entry.key, f"verdict{again}", Judged(mismatch))
            plan = Plan(plan.reconstruct, plan.judge, plan.train or wanted.train)
        if plan.train:
            trained = self._train(entry.key, again, stop, scan)
            outcome = f"trained on: model {trained[:12]} is to be pushed"
        return outcome

    def _collected(self, entry: ScanEntry) -> Collected:
        return self._collect(ScanEvent(**entry.event))

    def _judge(self, key: str, name: str, stop: threading.Event, scan: dict[str, Any]) -> float:
        """Mismatch of the live network on this scan; NaN where there is no such network to judge."""
        live = self._live_model()
        model = self._models.path_of(live) if live else None
        if model is None:
            self._report(f"scan {key}: the edge's model is not in the store, so it cannot be judged")
            return float("nan")
        judged = self._step(key, name, stop, {**scan, "model": str(model), "sha256": live}, of="judge")
        return self._settings.ceiling - float(judged["ssim_1px"])

    def _train(self, key: str, again: str, stop: threading.Event, scan: dict[str, Any]) -> str:
        corpus, store = self._settings.folder / "corpus.h5", self._settings.folder / "models"
        labels = {**scan, "corpus": str(corpus), "options": self._settings.label or {}}
        self._step(key, "label", stop, labels)
        live = self._live_model()
        start = self._models.checkpoint_of(live) if live else None
        arguments = {
            "corpus": str(corpus),
            "store": str(store),
            "key": key,
            "name": f"{key}{again.replace('#', '-')}",
            "options": self._settings.train or {},
            "warm_start": str(start) if start else None,
            "parent": live if start else "",
        }
        trained = self._step(key, f"train{again}", stop, arguments, of="train", progress=True)
        sha256 = str(trained["sha256"])
        if self._journal.steps(key).get(f"push{again}") is None:
            self._journal.begin(key, f"push{again}", time.time())
            self._journal.want_push(sha256)
            self._journal.finish(key, f"push{again}", {"sha256": sha256}, time.time())
        return sha256

    def _step(
        self,
        key: str,
        name: str,
        stop: threading.Event,
        arguments: dict[str, Any],
        of: str = "",
        progress: bool = False,
    ) -> dict[str, Any]:
        """A heavy step's result: from the journal where it is done, else of as many tries as are allowed."""
        while True:
            entry = self._journal.begin(key, name, time.time())
            if entry.state is StepState.DONE:
                return dict(entry.result)
            if stop.is_set():
                raise StoppedError
            self._report(f"scan {key}: {name}")
            try:
                result = self._wait(
                    self._runner.submit(of or name, arguments, self._on_progress if progress else None), stop
                )
            except AgentError as error:  # the step did not come to an end: it may do better next time
                more = entry.attempts < self._settings.attempts
                self._journal.fail(key, name, str(error), time.time(), again=more)
                _log.warning("scan %s, %s, attempt %d: %s", key, name, entry.attempts, error)
                if not more:
                    raise
            except PtychostreamError as error:  # the step says that it cannot be done
                self._journal.fail(key, name, str(error), time.time(), again=False)
                raise
            else:
                self._journal.finish(key, name, result, time.time())
                return result

    @staticmethod
    def _wait(future: Future[dict[str, Any]], stop: threading.Event) -> dict[str, Any]:
        while True:
            try:
                return future.result(_LOOK_S)
            except FutureTimeout:
                if stop.is_set():
                    future.cancel()
                    raise StoppedError from None


def _plain(values: dict[str, Any]) -> dict[str, Any]:
    """What JSON can hold of options."""
    plain: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Settings):
            plain[name] = value.model_dump(mode="json")
        elif value is not None:
            plain[name] = str(value) if isinstance(value, Path) else value
    return plain
