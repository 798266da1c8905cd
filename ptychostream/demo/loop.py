"""The learning loop: simulated beamline, IOC, image client and agent in separate processes.

The demonstration does what an operator does, with the same records: it sets the policy, changes the sample, and starts
the next scan when the agent has finished the last one. The processes do everything else by themselves.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.status import Status

from ptychostream.demo.agent_settings import write_agent_settings
from ptychostream.demo.client import read_received
from ptychostream.demo.journal_view import JournalView, read_journal
from ptychostream.demo.live import CAUSES
from ptychostream.demo.loop_place import BEAMLINE, Place, commands, prepare_folder
from ptychostream.demo.loop_plan import LoopPlan, Stage, stage_over
from ptychostream.demo.loop_record import LoopRecord, ScanTaken, assemble
from ptychostream.demo.processes import Child, DemoError
from ptychostream.demo.pvs import POLL_S, Follow, Pvs
from ptychostream.demo.second_terminal import second_terminal
from ptychostream.errors import DropCause
from ptychostream.imaging.phase_image import PhaseImage

READY_TIMEOUT_S = 120.0
SCAN_TIMEOUT_S = 180.0
SETTLE_TIMEOUT_S = 60.0
SLACK_S = 300.0
"""Time that the agent may take for a scan in addition to the training, seconds."""


@dataclass(frozen=True)
class LoopOutcome:
    """The result of the loop.

    Attributes
    ----------
    record, journal
        See `LoopRecord` and `JournalView`.
    images
        The live images that the client received, by scan.
    edge
        The edge's figures at the end: engine, latencies, rate, accounting.
    stopped
        Whether the loop was stopped before the end of its plan.
    """

    record: LoopRecord
    journal: JournalView
    images: dict[str, PhaseImage]
    edge: dict[str, Any]
    stopped: bool


class StoppedError(Exception):
    """The loop must end."""


class Loop:
    """Runs the learning loop once.

    Parameters
    ----------
    plan, place, console
        See `LoopPlan` and `Place`; `console` shows the progress.
    stop
        Event that ends the loop at its next check. The outcome is the part until then.
    """

    def __init__(self, plan: LoopPlan, place: Place, console: Console, stop: threading.Event) -> None:
        self._plan, self._place, self._console, self._stop = plan, place, console, stop
        self._scans: list[ScanTaken] = []
        self._images: dict[str, PhaseImage] = {}
        self._told: set[tuple[str, str]] = set()  # decisions that are printed already
        self._peak_hz = 0.0
        self._children: list[Child] = []
        self._status: Status
        self._edge: Pvs
        self._bench: Pvs
        self._at_edge: Follow
        self._at_bench: Follow

    def run(self) -> LoopOutcome:
        """Run the loop to its end. Raises DemoError."""
        prepare_folder(self._place.folder)
        began_s = time.time()
        first_mode, stopped = (began_s, "Offline"), False
        with ExitStack() as stack:
            self._start(stack)
            try:
                first_mode = self._ready()
                self._session()
            except StoppedError:
                stopped = True
            journal = self._journal()
            record = assemble(
                journal,
                self._scans,
                self._lives(),
                began_s=began_s,
                ended_s=time.time(),
                first_mode=first_mode,
                losses=[(update.time_s, float(update.value)) for update in self._at_edge.seen("Agent:ValLoss")],
                tolerance=[(update.time_s, float(update.value)) for update in self._at_edge.seen("Agent:Tolerance")],
            )
            edge = self._edge_figures()
            self._console.print("  ending the agent, the client, the IOC and the beamline")
        return LoopOutcome(record, journal, self._images, edge, stopped)

    # Start

    def _start(self, stack: ExitStack) -> None:
        plan, place = self._plan, self._place
        logs = place.folder / "logs"
        logs.mkdir(parents=True)
        write_agent_settings(place.configuration, plan, BEAMLINE, place.canvases, os.cpu_count() or 1)
        for name, (module, arguments) in commands(plan, place).items():
            self._console.print(f"  $ {module} {' '.join(arguments)}", style="dim", soft_wrap=True)
            child = Child(module, arguments, logs / f"{name}.log", place.environment)
            self._children.append(stack.enter_context(child))
        self._edge, self._bench = Pvs(place.prefix, place.environment), Pvs(BEAMLINE, place.environment)
        stack.callback(self._edge.close)
        stack.callback(self._bench.close)
        self._at_edge = self._edge.follow("ModelSHA_RBV", "ModelVersion_RBV", *_SHOWN)
        self._at_bench = self._bench.follow("Complete_RBV", "Busy_RBV")
        stack.callback(self._at_edge.close)
        stack.callback(self._at_bench.close)
        self._status = stack.enter_context(self._console.status("starting four processes"))

    def _ready(self) -> tuple[float, str]:
        """Wait until all processes are ready, and set the policy. Returns the time and the value of its first mode."""
        plan, prefix = self._plan, self._place.prefix
        self._wait(lambda: self._edge.value("ModelState_RBV") is not None, READY_TIMEOUT_S, "the IOC's records")
        self._wait(lambda: self._bench.value("Busy_RBV") is not None, READY_TIMEOUT_S, "the beamline's records")
        for name, value in (("Tolerance", plan.tolerance), ("Scans", plan.scans), ("Interval", plan.interval_s)):
            self._console.print(f"  caput {prefix}Agent:{name} {value:g}", style="cyan")
            self._edge.put(f"Agent:{name}", value)
        self._wait(lambda: self._edge.choice("Agent:State") not in ("", "Offline"), READY_TIMEOUT_S, "the agent")
        self._wait(lambda: self._edge.value("Connected_RBV"), READY_TIMEOUT_S, "the detector's channel at the IOC")
        mode = self._edge.choice("Agent:State")
        self._console.print(f"  all are ready; the agent is in {mode}, the edge has no model")
        return self._at_edge.seen("Agent:State")[-1].time_s, mode

    # The scans

    def _session(self) -> None:
        for number, stage in enumerate(self._plan.each()):
            if number:
                self._console.print(f"\n[bold]The sample is changed: {stage.sample}[/bold], not seen before")
                self._console.print(f"  caput {BEAMLINE}Sample {stage.sample}", style="cyan")
            self._bench.choose("Sample", stage.sample)
            self._stage(stage)
        for _ in range(self._plan.rest):
            self._scan(self._plan.stages[-1].sample)

    def _stage(self, stage: Stage) -> None:
        for taken in range(1, stage.most + 1):
            scan = self._scan(stage.sample)
            judged = _mismatch(self._journal(), scan.scan)
            within = judged is not None and judged < self._plan.tolerance
            if stage_over(stage, taken, within, self._edge.choice("Agent:State") == "Suspended"):
                break

    def _scan(self, sample: str) -> ScanTaken:
        """Take a scan, and wait until edge and agent have finished it."""
        before = self._counts()
        version = self._live_version()
        number = int(self._bench.get("ScanNumber_RBV")[0])
        began_s = time.time()
        self._bench.put("Start", 1)
        self._wait(lambda: int(self._bench.value("ScanNumber_RBV") or 0) > number, SCAN_TIMEOUT_S, "scan")
        scan = str(self._bench.get("ScanID_RBV")[0])
        self._wait(self._complete, SCAN_TIMEOUT_S, "end of the scan", lambda: self._streaming(scan, version))
        complete_s = self._at_bench.seen("Complete_RBV")[-1].time_s
        sent = int(self._bench.get("FramesSent_RBV")[0])
        self._wait(lambda: self._settled(before, sent), SETTLE_TIMEOUT_S, f"account of all {sent} frames")
        taken = self._taken(before, scan, sample, began_s, complete_s, version, sent)
        if taken.stitched:
            self._wait(lambda: self._image_of(taken), SETTLE_TIMEOUT_S, f"image of all {taken.stitched} frames")
        self._scans.append(taken)
        self._tell_streamed(taken)
        self._wait(lambda: self._through(scan), self._plan.training_limit_s + SLACK_S, "end of the agent's work",
                   lambda: self._agent_text(scan))  # fmt: skip
        self._tell_learned(taken)
        return taken

    def _image_of(self, taken: ScanTaken) -> bool:
        """Whether the client has the complete image of a scan. The image is stored then."""
        newest = read_received(self._place.received)
        if newest is None or (newest.scan, newest.frames) != (taken.scan, taken.stitched):
            return False
        self._images[taken.scan] = newest.image
        return True

    def _complete(self) -> bool:
        return bool(self._bench.value("Complete_RBV")) and not self._bench.value("Busy_RBV")

    def _through(self, scan: str) -> bool:
        journal = self._journal()
        self._tell_decisions(journal, scan)
        return journal.through(scan)

    def _settled(self, before: dict[str, int], sent: int) -> bool:
        now = self._counts()
        come = now["FramesReceived_RBV"] - before["FramesReceived_RBV"]
        missed = now["FramesMissed_RBV"] - before["FramesMissed_RBV"]
        return come + missed >= sent and now["FramesPending_RBV"] == 0

    def _counts(self) -> dict[str, int]:
        return {name: int(value) for name, value in zip(_COUNTED, self._edge.get(*_COUNTED), strict=True)}

    def _taken(
        self,
        before: dict[str, int],
        scan: str,
        sample: str,
        began_s: float,
        complete_s: float,
        version: str,
        sent: int,
    ) -> ScanTaken:
        now = self._counts()
        stitched = now["FramesStitched_RBV"] - before["FramesStitched_RBV"]
        no_model = now[_NO_MODEL] - before[_NO_MODEL]
        return ScanTaken(
            scan, sample, began_s, complete_s, version, sent, stitched, no_model, sent - stitched - no_model
        )

    # Messages on the console

    def _streaming(self, scan: str, version: str) -> str:
        rate = float(self._edge.value("ArrayRate_RBV") or 0.0)
        self._peak_hz = max(self._peak_hz, rate)
        through = f"through model {version}" if version else "with no model"
        return f"{scan}: streaming at {rate:.0f} frames/s {through}"

    def _agent_text(self, scan: str) -> str:
        seen = self._at_edge
        text = f"{scan}: the agent is in {self._edge.choice('Agent:State')}"
        if seen.now("Agent:Epoch"):
            epoch, epochs, loss = (seen.now(f"Agent:{name}") for name in ("Epoch", "Epochs", "ValLoss"))
            text += f", epoch {epoch} of {epochs}, validation loss {loss or 0:.4f} rad"
        return text

    def _tell_streamed(self, taken: ScanTaken) -> None:
        what = f"{taken.stitched} of {taken.sent} frames stitched live by model {taken.version}"
        if not taken.version:
            what = f"{taken.sent} frames, and no model yet to infer them"
        lost = f"[red]{taken.lost} lost" if taken.lost else "none lost"
        self._console.print(f"\n[bold]{taken.scan}[/bold]: {what}, {lost}")
        if len(self._scans) == 1:
            self._console.print("  from a second terminal, all the while:")
            self._console.print(watch_lines(self._place), style="cyan", soft_wrap=True)

    def _tell_decisions(self, journal: JournalView, scan: str) -> None:
        found = journal.scan(scan)
        for step in found.steps.values() if found is not None else ():
            if step.state == "done" and (scan, step.name) not in self._told:
                self._told.add((scan, step.name))
                if text := _step_text(step.name, step.result, step.message):
                    self._console.print(f"  {text}")

    def _tell_learned(self, taken: ScanTaken) -> None:
        lives = self._lives()
        if lives and lives[-1][0] > taken.complete_s:
            _, sha256, version = lives[-1]
            if any(sha256 == earlier for _, earlier, _ in lives[:-1]):
                self._console.print(f"  [yellow]the edge went back to model {version}[/yellow]")
                return
            seconds = lives[-1][0] - taken.complete_s
            text = f"model {version} is live at the edge, {seconds:.0f} s after the scan was complete"
            self._console.print(f"  [green]{text}[/green]")

    # Reading records and journal

    def _journal(self) -> JournalView:
        return read_journal(self._place.journal)

    def _live_version(self) -> str:
        sha256, version = self._edge.get("ModelSHA_RBV", "ModelVersion_RBV")
        return str(version) if sha256 else ""

    def _lives(self) -> list[tuple[float, str, str]]:
        """(time, sha256, version) of every model that was live. The IOC writes both records at the same time."""
        versions = self._at_edge.seen("ModelVersion_RBV")
        found = []
        for update in self._at_edge.seen("ModelSHA_RBV"):
            if update.value:
                nearest = min(versions, key=lambda version: abs(version.time_s - update.time_s))
                found.append((update.time_s, str(update.value), str(nearest.value)))
        return found

    def _edge_figures(self) -> dict[str, Any]:
        names = ("EngineName_RBV", "LatencyP50_RBV", "LatencyP95_RBV", "LatencyP99_RBV")
        engine, *latencies = self._edge.get(*names)
        return {
            "engine": str(engine),
            "model_version": self._live_version(),
            "latency_ms": dict(zip(("p50", "p95", "p99"), map(float, latencies), strict=True)),
            "rate_hz": self._peak_hz,
            "counts": self._counts(),
        }

    def _wait(
        self, condition: Callable[[], Any], timeout_s: float, what: str, text: Callable[[], str] = lambda: ""
    ) -> None:
        deadline = time.monotonic() + timeout_s
        while not condition():
            for child in self._children:
                if not child.running():
                    raise child.failure()
            if time.monotonic() > deadline:
                where = str(self._place.folder / "logs")
                raise DemoError(f"no {what} within {timeout_s:.0f} s", where=where, remedy="see the logs there")
            if shown := text():
                self._status.update(shown)
            if self._stop.wait(POLL_S):
                raise StoppedError


_SHOWN = (
    "Agent:State", "Agent:Epoch", "Agent:Epochs", "Agent:ValLoss", "Agent:CorpusFrames", "Agent:Tolerance",
)  # fmt: skip
_NO_MODEL = f"Dropped{DropCause.NO_MODEL.value}_RBV"
_COUNTED = (
    "FramesReceived_RBV",
    "FramesStitched_RBV",
    "FramesPending_RBV",
    "FramesMissed_RBV",
    *(f"Dropped{cause}_RBV" for cause in CAUSES),
)


def watch_lines(place: Place) -> str:
    """The commands for a second terminal that watches the agent and the live model."""
    agent = ("Agent:State", "Agent:Message", "Agent:Epoch", "Agent:ValLoss", "ModelVersion_RBV")
    return second_terminal(place.environment, place.prefix, agent, ("Agent:CorpusFrames", "Phase"))


def _mismatch(journal: JournalView, scan: str) -> float | None:
    found = journal.scan(scan)
    judged = found.result("judge") if found is not None else None
    return None if judged is None else 1 - float(judged["ssim_1px"])


def _step_text(name: str, result: Any, message: str) -> str:
    """A line about a finished step. Empty for steps without figures."""
    match name.partition("#")[0]:
        case "plan" | "verdict":
            return f"policy: {message}"
        case "reconstruct":
            warm = f", from {' and '.join(result['warm_start'])}" if result.get("warm_start") else ""
            return f"ePIE: R factor {result['r_factor']:.4f} in {result['seconds']:.1f} s{warm}"
        case "judge":
            return f"live against ePIE: SSIM {result['ssim_1px']:.3f} ({result['ssim']:.3f} as it is)"
        case "label":
            return f"corpus: {result['corpus_pairs']} pairs of {result['corpus_scans']} scans"
        case "train":
            what = f"validation loss {result['validation_loss']:.4f} rad after {result['epochs']} epochs"
            return f"trained: {what}, {result['seconds']:.1f} s"
    return ""
