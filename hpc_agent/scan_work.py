"""The steps of one completed scan. Each is written to the journal and finished once, however often it begins."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Protocol

from ptychostream.config import Settings
from ptychostream.errors import AgentError, PtychostreamError
from ptychostream.hpc_agent.disk_room import DiskRoom, StoppedError
from ptychostream.hpc_agent.edge.judge_dose import EdgeDose
from ptychostream.hpc_agent.edge.refining import Refining
from ptychostream.hpc_agent.journal.journal import Journal, ScanEntry, StepState
from ptychostream.hpc_agent.journal.policy import (
    Event,
    Judged,
    Plan,
    ReconstructAsked,
    RetrainAsked,
    ScanCompleted,
)
from ptychostream.hpc_agent.journal.policy_keeper import PolicyKeeper
from ptychostream.hpc_agent.running.runner_process import Progress
from ptychostream.hpc_agent.scans.collect import Collected, ScanEvent
from ptychostream.hpc_agent.scans.live_canvas import await_canvas, find_canvas
from ptychostream.hpc_agent.scans.live_refined import await_refined
from ptychostream.hpc_agent.tidying import clear_old_scans
from ptychostream.hpc_agent.work_settings import WorkSettings
from ptychostream.scans.phase_file import file_stem

_log = logging.getLogger(__name__)
_COMMANDS: dict[str, Event] = {
    "": ScanCompleted(),
    "reconstruct": ReconstructAsked(),
    "retrain": RetrainAsked(),
}
_LOOK_S = 0.5  # how often a waiting step checks whether the agent stops
_EARLIER = 20  # so many earlier reconstructions are looked at for one to start from


class Runner(Protocol):
    """Runs the heavy steps of `ptychostream.hpc_agent.steps`, here or on a cluster."""

    def submit(
        self, step: str, arguments: dict[str, Any], on_progress: Progress | None = None
    ) -> Future[dict[str, Any]]:
        """Begin a step. The future gives its result, or raises an AgentError that says why there is none."""
        ...


class ModelFiles(Protocol):
    """A model of the store."""

    @property
    def path(self) -> Path:
        """Its ONNX file."""
        ...

    @property
    def checkpoint(self) -> Path | None:
        """Its weights for a warm start; None: it came without."""
        ...


class Models(Protocol):
    """The model store, as far as a scan's work uses it."""

    def find(self, sha256: str) -> ModelFiles | None:
        """The files of a model, compared with their sums; None: they are missing or damaged."""
        ...


class LiveEdge(Protocol):
    """The edge, as far as a scan's work uses it. No method blocks."""

    def live_model(self) -> str | None:
        """sha256 of the model that runs; "" where none runs, None where the edge is not connected."""
        ...

    def previous_model(self) -> str | None:
        """sha256 of the model before the live one, which a rollback restores; it is judged beside the live one."""
        ...

    def saves_canvases(self) -> bool:
        """Whether the edge saves the canvas of every scan automatically."""
        ...

    def dose(self) -> EdgeDose:
        """The dose that its records give."""
        ...

    def refining(self) -> Refining:
        """What its refinement does."""
        ...


class ScanWork:
    """Works through scans, one at a time.

    Parameters
    ----------
    journal, runner, models, settings
        See `Journal`, `Runner`, `Models` and `WorkSettings`.
    collect
        Finds the scan's file; see `ptychostream.hpc_agent.scans.collect.collect`.
    edge
        See `LiveEdge`.
    policy
        Decides what is done.
    room
        Steps wait for it.
    report
        Called with a message for people: `report(message)`.
    on_progress
        Called with the epoch and the losses of a training after each epoch.
    on_result
        Called with the result of each step: `on_result(step, result)`.
    """

    def __init__(
        self,
        journal: Journal,
        runner: Runner,
        models: Models,
        settings: WorkSettings,
        *,
        collect: Callable[[ScanEvent], Collected],
        edge: LiveEdge,
        policy: PolicyKeeper,
        room: DiskRoom,
        report: Callable[[str], None],
        on_progress: Progress,
        on_result: Callable[[str, dict[str, Any]], None] = lambda _step, _result: None,
    ) -> None:
        self._journal = journal
        self._runner = runner
        self._models = models
        self._settings = settings
        self._collect = collect
        self._edge = edge
        self._policy = policy
        self._room = room
        self._report = report
        self._on_progress = on_progress
        self._on_result = on_result
        self._found: dict[str, ModelFiles | None] = {}  # models of this scan; finding one reads its files
        self._why = ""  # the policy's latest reason for this scan; reported with each step

    def work(self, entry: ScanEntry, stop: threading.Event) -> str:
        """Do the steps that the policy decides for a scan; return its outcome, which is also written to the journal.

        Raises
        ------
        StoppedError
            `stop` was set. Finished steps are kept and the scan stays open.
        """
        try:
            outcome = self._work(entry, stop)
        except PtychostreamError as error:
            _log.warning("scan %s: %s", entry.key, error)
            outcome = f"failed: {error}"
        self._journal.close_scan(entry.key, outcome)
        self._report(f"scan {entry.key}: {outcome}")
        clear_old_scans(self._settings.folder, self._journal, self._settings.keep_scans)
        return outcome

    def _work(self, entry: ScanEntry, stop: threading.Event) -> str:
        self._found.clear()
        # When an operator asks for a scan again, its steps get new names, so that they are done again.
        again = f"#{entry.asked_times}" if entry.asked_times else ""
        event = _COMMANDS[entry.asked]
        plan, self._why = self._policy.decide(entry.key, f"plan{again}", event)
        if not plan.reconstruct:
            return f"passed over: {self._why}"
        collected = self._collected(entry)
        scan = {"scan": str(collected.path), "scan_options": _plain(vars(collected.options)), "key": entry.key}
        refined = self._refined(collected.scan_id, stop)
        arguments = {
            **scan,
            "folder": self._folder(entry.key),
            "options": self._settings.reconstruct or {},
            "initial": self._initial(entry, collected.scan_id, stop),
        }
        if refined is not None:
            arguments["refined"] = refined
        anew = again if entry.asked == "reconstruct" else ""
        made = self._step(entry.key, f"reconstruct{anew}", stop, arguments, of="reconstruct")
        if made.get("diverged"):
            return f"the reconstruction diverged ({made.get('reason', '')}): it gives no labels"
        self._tell_refined(entry.key, made)
        by = " by the edge's refinement" if made.get("refined") else ""
        scan["reconstruction"] = made["reconstruction"]
        outcome = f"reconstructed{by}"
        if plan.judge:
            mismatch = self._judge(entry.key, f"judge{again}", stop, scan, collected.scan_id)
            wanted, self._why = self._policy.decide(entry.key, f"verdict{again}", Judged(mismatch))
            outcome = f"judged{by}: {self._why}"
            plan = Plan(plan.reconstruct, plan.judge, plan.train or wanted.train)
        if plan.train:
            trained = self._train(entry.key, again, stop, scan)
            outcome = f"trained on{by and ' its reconstruction' + by}: model {trained[:12]} is to be pushed"
        return outcome

    def _folder(self, key: str) -> str:
        return str(self._settings.folder / "scans" / file_stem(key))

    def _refined(self, scan_id: str, stop: threading.Event) -> dict[str, str] | None:
        """The edge's refined result of this scan, or why there is none; None: it must not be taken."""
        if not self._settings.refined or self._settings.canvases is None:
            return None
        folder = self._settings.canvases / "refined"
        path, reason = await_refined(folder, scan_id, self._edge.refining, self._settings.refined_wait_s, stop)
        if stop.is_set():
            raise StoppedError
        return {"file": str(path)} if path else {"reason": reason}

    def _tell_refined(self, key: str, made: dict[str, Any]) -> None:
        if made.get("refined"):
            self._report(f"scan {key}: its reconstruction is the edge's refined result, {made['refined']}")
        elif made.get("refined_refused"):
            self._report(f"scan {key}: the edge's refined result is not taken: {made['refined_refused']}")

    def _initial(self, entry: ScanEntry, scan_id: str, stop: threading.Event) -> dict[str, str | None]:
        """Files that the reconstruction may start from: the live canvas and the previous reconstruction."""
        folder = self._settings.canvases
        canvas = await_canvas(folder, scan_id, self._canvas_wait_s(entry), stop) if folder else None
        if stop.is_set():
            raise StoppedError
        last = self._earlier_reconstruction(entry.number)
        return {"canvas": str(canvas) if canvas else None, "reconstruction": last}

    def _canvas_wait_s(self, entry: ScanEntry) -> float:
        """How long to wait for a canvas, counted from the scan's completion; bounded where the clock has jumped."""
        if not (self._edge.live_model() and self._edge.saves_canvases()):
            return 0.0
        longest = self._settings.canvas_wait_s
        return min(max(0.0, entry.entered_s + longest - time.time()), longest)

    def _earlier_reconstruction(self, number: int) -> str | None:
        """The newest reconstruction of an earlier scan that has not diverged and whose file is there."""
        done = self._journal.results_before(number, "reconstruct", _EARLIER)
        names = (str(result["reconstruction"]) for result in done if not result.get("diverged"))
        return next((name for name in names if Path(name).exists()), None)

    def _collected(self, entry: ScanEntry) -> Collected:
        while True:
            self._room.wait_for_room()
            try:
                return self._collect(ScanEvent(**entry.event))
            except PtychostreamError as error:
                if not self._room.is_cause_of(error):
                    raise
                self._room.refused(str(error))

    def _judge(self, key: str, name: str, stop: threading.Event, scan: dict[str, Any], scan_id: str) -> float:
        """Mismatch of the live network on this scan; NaN where the live network is not in the store."""
        live = self._edge.live_model()
        if self._find(live) is None:
            self._report(f"scan {key}: the edge's model is not in the store and cannot be judged")
            return float("nan")
        previous, folder = self._edge.previous_model(), self._settings.canvases
        canvas = find_canvas(folder, scan_id) if folder else None
        dose = replace(self._edge.dose(), canvas=str(canvas) if canvas else None)
        arguments = {
            **scan,
            "folder": self._folder(key),
            **self._files(live),
            "previous": self._files(previous) if previous != live else None,
            "dose": asdict(dose),
            "options": self._settings.judge or {},
        }
        judged = self._step(key, name, stop, arguments, of="judge")
        return self._settings.ceiling - float(judged["ssim_1px"])

    def _files(self, sha256: str | None) -> dict[str, str | None]:
        """Arguments of the judge step that name a model's files."""
        model = self._find(sha256)
        weights = model.checkpoint if model else None
        return {"model": str(model.path) if model else None, "checkpoint": str(weights) if weights else None}

    def _find(self, sha256: str | None) -> ModelFiles | None:
        if sha256 and sha256 not in self._found:
            self._found[sha256] = self._models.find(sha256)
        return self._found[sha256] if sha256 else None

    def _train(self, key: str, again: str, stop: threading.Event, scan: dict[str, Any]) -> str:
        corpus, store = self._settings.folder / "corpus", self._settings.folder / "models"
        labels = {**scan, "corpus": str(corpus), "options": self._settings.label or {}}
        self._step(key, "label", stop, labels)
        live = self._edge.live_model()
        model = self._find(live)
        start = model.checkpoint if model else None
        arguments = {
            **scan,
            "folder": self._folder(key),
            "corpus": str(corpus),
            "store": str(store),
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
        """The result of a step: from the journal if it is done, else from at most `attempts` tries."""
        while True:
            entry = self._journal.begin(key, name, time.time())
            if entry.state is StepState.DONE:
                return dict(entry.result)
            if stop.is_set():
                raise StoppedError
            self._room.wait_for_room()
            self._report(f"scan {key}: {name} ({self._why})")
            try:
                result = self._wait(
                    self._runner.submit(of or name, arguments, self._on_progress if progress else None), stop
                )
            except PtychostreamError as error:
                if self._room.is_cause_of(error):
                    self._journal.postpone(key, name, str(error), time.time())
                    self._room.refused(str(error))
                    continue
                # A step that did not finish may finish at the next try; one that reports a reason cannot be done.
                more = isinstance(error, AgentError) and entry.attempts < self._settings.attempts
                self._journal.fail(key, name, str(error), time.time(), again=more)
                _log.warning("scan %s, %s, attempt %d: %s", key, name, entry.attempts, error)
                if not more:
                    raise
            else:
                self._journal.finish(key, name, result, time.time())
                self._on_result(of or name, result)
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
    """Options as JSON values."""
    plain: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Settings):
            plain[name] = value.model_dump(mode="json")
        elif value is not None:
            plain[name] = str(value) if isinstance(value, Path) else value
    return plain
