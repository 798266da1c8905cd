"""The agent as a process: creates its parts, starts them in order, and stops them in order."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Mapping
from contextlib import ExitStack
from importlib import import_module
from typing import Any

from ptychostream.errors import AgentError, ConfigError, ModelError, ScanFileError
from ptychostream.hpc_agent.agent import Agent
from ptychostream.hpc_agent.disk_room import DiskRoom, StoppedError
from ptychostream.hpc_agent.edge.edge_records import EdgeRecords
from ptychostream.hpc_agent.edge.push import PushRefusedError, push
from ptychostream.hpc_agent.edge.switches import Switches
from ptychostream.hpc_agent.folder import agent_name, held
from ptychostream.hpc_agent.journal.journal import Journal, ScanEntry
from ptychostream.hpc_agent.journal.policy_keeper import PolicyKeeper
from ptychostream.hpc_agent.keys import ScanKeys
from ptychostream.hpc_agent.models.model_store import ModelStore
from ptychostream.hpc_agent.models.rollback_notes import RollbackNotes
from ptychostream.hpc_agent.running.runner import STEPS_MODULE, make_runner
from ptychostream.hpc_agent.scan_work import ScanWork
from ptychostream.hpc_agent.scans.collect import Collected, ScanEvent
from ptychostream.hpc_agent.scans.collect_apart import collect_apart
from ptychostream.hpc_agent.scans.scan_checks import CollectError
from ptychostream.hpc_agent.scans.stream_recorder import StreamRecorderSettings, stream_recorder
from ptychostream.hpc_agent.scans.watch import ScanWatch
from ptychostream.hpc_agent.scans.watch_folder import MissedScans
from ptychostream.hpc_agent.settings import AgentSettings
from ptychostream.hpc_agent.steps.step_parts import read_options
from ptychostream.hpc_agent.tidying import JournalCopies, remove_leftovers, temporary
from ptychostream.hpc_agent.work_settings import WorkSettings
from ptychostream.processes.restarter import Restarter
from ptychostream.storage.file_systems import file_system

log = logging.getLogger(__name__)

_CHORES_S = 1.0
_REFUSALS_S = 10.0  # refusals closer together than this belong to one series
_STEP_OPTIONS = {
    "reconstruct": "ReconstructStepOptions",
    "label": "LabelOptions",
    "train": "TrainStepOptions",
    "judge": "JudgeOptions",
}


class AgentProcess:
    """All parts of the agent.

    Parameters
    ----------
    settings
        See `AgentSettings`.

    Raises
    ------
    AgentError, ConfigError
        The journal cannot be opened, Parsl is not installed, or the options of a step are wrong.
    """

    def __init__(self, settings: AgentSettings) -> None:
        check_options(settings)
        self._settings = settings
        self._stop = threading.Event()
        self._refused_at: tuple[float, float] | None = None  # times of the first and the latest refusal of a series
        self._in_vain = ""  # the newest model that the edge refused since it started
        self._edge_there = False
        self._failure: Exception | None = None
        self._look = threading.Event()  # set to look for files of missed scans
        work_folder = settings.work
        self._room = DiskRoom(work_folder, int(settings.least_free_mb * 1e6))
        self._journal = Journal(
            work_folder / "journal.sqlite", shared=file_system(work_folder).shared, patience=self._room
        )
        self._copies = JournalCopies(work_folder / "journal.sqlite")
        self._missed = MissedScans(settings.folder, self._journal)
        self._store = ModelStore(settings.work / "models")
        self._rollbacks = RollbackNotes(self._store, self._say)
        self._runner = make_runner(settings.runner, settings.work)
        self._edge = EdgeRecords(
            settings.prefix,
            Switches(settings.enabled, settings.policy),
            on_command=self._command,
            on_refused=self._refused,
            holder=agent_name(settings.work),
            key=settings.push.key(),
        )
        policy = PolicyKeeper(self._journal, lambda: self._edge.switches().policy, self._say)
        work = _Work(
            self._journal,
            self._runner,
            self._store,
            _work_settings(settings),
            collect=self._collect,
            edge=self._edge,
            policy=policy,
            room=self._room,
            report=self._say,
            on_progress=self._progress,
            on_result=self._result,
        )
        keys = ScanKeys(self._journal, settings.collect.path_map)
        self._agent = Agent(self._journal, policy, work, self._edge, self._push, keys, self._room)
        self._chores = threading.Thread(target=self._do_chores, name="chores", daemon=True)
        self._recorder: Restarter | None = None

    def run(self) -> None:
        """Work until `stop`.

        Raises
        ------
        AgentError
            Another agent works in this folder, or for this edge; or the journal fails.
        StreamError
            The recording does not start.
        """
        with ExitStack() as ended:
            ended.callback(self._journal.close)
            try:
                ended.enter_context(held(self._settings.work, self._room, self._end_with, self._say))
            except StoppedError:
                return
            remove_leftovers(self._settings.work)
            ended.callback(self._edge.stop)
            ended.callback(self._runner.close)
            ended.callback(self._stop.set)
            self._agent.run(lambda: self._start(ended))
        if self._failure is not None:
            raise self._failure

    def _end_with(self, error: Exception) -> None:
        """End `run`, which raises `error`. Any thread."""
        if self._failure is None:
            self._failure = error
            self.stop()

    def stop(self) -> None:
        """End `run`. Any thread."""
        self._stop.set()
        self._look.set()
        self._agent.stop()

    def _start(self, ended: ExitStack) -> None:
        """Start what reports scans, once this agent has the work folder."""
        settings = self._settings
        self._edge.start()
        if settings.record.channel:
            self._recorder = ended.enter_context(
                stream_recorder(
                    StreamRecorderSettings(
                        channel=settings.record.channel,
                        template=settings.collect.recordings,
                        arguments=settings.record.arguments,
                        log=settings.work / "record.log",
                    )
                )
            )
        self._look.set()  # first of all: what is there now is left alone
        self._chores.start()
        ended.callback(self._end_chores)
        if settings.watch.complete_pv:
            latest = self._journal.latest_scan()
            last = ScanEvent(**latest.event) if latest else None
            watch = ScanWatch(settings.watch, self._agent.scan_completed, last, self._look.set)
            watch.start()
            ended.callback(watch.stop)

    # Scans

    def _do_chores(self) -> None:
        due, settings = math.inf, self._settings
        while not self._stop.is_set():
            try:
                if self._recorder is not None:
                    self._recorder.check()
                self._push_again()
                self._rollbacks.look(self._edge.rollback_message())
                if self._look.is_set() or time.monotonic() >= due:
                    self._look.clear()
                    self._look_into_folder()
                    due = time.monotonic() + min(self._missed.next_s, settings.folder.poll_s or math.inf)
                self._copies.look()
            except StoppedError:
                return
            except Exception:  # the thread's outermost
                log.exception("scans that were missed could not be looked for")
            self._stop.wait(_CHORES_S)

    def _end_chores(self) -> None:
        self._stop.set()
        self._chores.join()

    def _look_into_folder(self) -> None:
        for found in self._missed.look():
            if self._agent.scan_completed(found.event, "found in its folder"):
                self._missed.note(found)

    def _collect(self, event: ScanEvent) -> Collected:
        try:
            settings = self._settings
            return collect_apart(event, settings.collect, self._stop, self._runner.start_here, temporary(settings.work))
        except CollectError:
            if self._stop.is_set():  # the collection was stopped
                raise StoppedError from None
            raise

    # The edge

    def _say(self, message: str) -> None:
        log.info("%s", message)
        self._edge.report(Message=message)

    def _progress(self, told: Mapping[str, Any]) -> None:
        names = {"epoch": "Epoch", "epochs": "Epochs", "train_loss": "TrainLoss", "val_loss": "ValLoss"}
        self._edge.report(**{record: told[name] for name, record in names.items() if told.get(name) is not None})

    def _result(self, step: str, result: Mapping[str, Any]) -> None:
        if step == "label" and "corpus_pairs" in result:
            self._edge.report(CorpusFrames=result["corpus_pairs"])
        if step == "judge" and "model" in result:
            previous = result.get("previous") or {}
            self._edge.judged(
                str(result["model"]),
                float(result["ssim_1px"]),
                str(previous.get("model", "")),
                float(previous.get("ssim_1px", float("nan"))),
            )

    def _command(self, name: str) -> None:
        self._agent.command(name)
        if not self._journal.any_ended():
            self._edge.command_done(name)  # there is no scan to apply it to

    def _refused(self, error: AgentError) -> None:
        """Another agent has the edge's lease. This agent ends when that lasts for `refused_s`."""
        now = time.monotonic()
        first, latest = self._refused_at or (now, now)
        self._refused_at = (now if now - latest > _REFUSALS_S else first, now)
        if now - self._refused_at[0] >= self._settings.refused_s:
            self._end_with(error)

    def _push_again(self) -> None:
        """Push a refused model again to an edge that has restarted: its configuration may have been corrected."""
        there, self._edge_there = self._edge_there, self._edge.connected
        if self._edge_there and not there and self._in_vain:
            if not self._journal.waiting_push:
                self._journal.want_push(self._in_vain)
            self._in_vain = ""

    def _push(self, sha256: str) -> None:
        if self._edge.connected and not self._edge.held:
            remedy = "it is pushed when that agent has ended"
            raise AgentError("the edge has another agent", where=self._settings.prefix, remedy=remedy)
        try:
            model = self._store.find(sha256)
            if model is None:
                raise ModelError("it is not in the store", where=sha256[:12])
            push(self._settings.edge, model.path)
        except (PushRefusedError, ModelError) as error:
            self._journal.pushed(sha256)  # the edge would refuse it again, until it restarts
            self._in_vain = sha256
            raise AgentError(f"in vain: {error.what}", where=error.where, remedy=error.remedy) from error
        except ConfigError as error:
            raise AgentError(error.what, where=error.where, remedy=error.remedy) from error
        self._edge.pushed(sha256)
        previous, waiting = self._edge.previous_model(), self._journal.waiting_push
        try:
            self._store.gc(self._settings.keep_models, {sha256, previous or sha256, waiting or sha256})
        except ScanFileError as error:  # the model is live nevertheless
            log.warning("the model store was not tidied: %s", error)


class _Work(ScanWork):
    """Tells the edge when an operator's command is done."""

    def __init__(self, *parts: Any, edge: EdgeRecords, **more: Any) -> None:
        super().__init__(*parts, edge=edge, **more)
        self._records = edge

    def work(self, entry: ScanEntry, stop: threading.Event) -> str:
        outcome = super().work(entry, stop)
        if entry.asked:
            self._records.command_done(entry.asked)
        return outcome


def check_options(settings: AgentSettings) -> None:
    """Check the options of the steps before any scan is processed.

    Raises
    ------
    ConfigError
        An option is wrong; the error names the step and the option.
    """
    if settings.runner.module != STEPS_MODULE:
        return
    for step, kind in _STEP_OPTIONS.items():
        try:
            module = import_module(f"ptychostream.hpc_agent.steps.{step}_step")
        except ImportError as error:  # on a cluster's login node
            log.info("the options of the step %s are not checked here: %s", step, error)
            continue
        try:
            read_options(getattr(module, kind), getattr(settings.steps, step), step)
        except ConfigError as error:
            raise ConfigError(error.what, where=f"steps.{step}", remedy=error.remedy) from error


def _work_settings(settings: AgentSettings) -> WorkSettings:
    steps = settings.steps
    return WorkSettings(
        settings.work.resolve(),
        attempts=steps.attempts,
        reconstruct=steps.reconstruct,
        train=steps.train,
        label={"keep_pairs": settings.keep_pairs, **steps.label},
        judge=steps.judge,
        canvases=steps.canvases,
        canvas_wait_s=steps.canvas_wait_s,
        refined=steps.refined == "when_converged",
        refined_wait_s=steps.refined_wait_s,
        ceiling=steps.ceiling,
        keep_scans=settings.keep_scans,
    )
