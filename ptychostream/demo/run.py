"""The steps of the demonstration: data, reconstruction, training, live stream, learning loop, report."""

from __future__ import annotations

import json
import math
import os
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from ptychostream.datasets import fetching as datasets
from ptychostream.demo.client import PHASE
from ptychostream.demo.live import Live, Stage, stream
from ptychostream.demo.loop_plan import LoopPlan
from ptychostream.demo.loop_plan import Stage as LoopStage
from ptychostream.demo.loop_show import loop_report, show_loop
from ptychostream.demo.processes import Child, DemoError
from ptychostream.demo.report import FIGURE, Report, versions, write_html, write_json
from ptychostream.demo.second_terminal import second_terminal
from ptychostream.demo.series import REFINED, similarities
from ptychostream.errors import DatasetError
from ptychostream.processes.loopback import free_ports, loopback_environment
from ptychostream.processes.program import child_command
from ptychostream.quality import figures
from ptychostream.quality.quality import compare
from ptychostream.quality.refined_figure import refined_figure
from ptychostream.scans.reconstruction_file import read_reconstruction
from ptychostream.scans.scan_files import open_scan

PREFIX = "ptycho:NN1:"
CHANNEL = "26id:det:Pva1:Image"
REAL = "26id-247"
SIMULATION_TIMEOUT_S = 120.0


@dataclass(frozen=True)
class Plan:
    """The plan for one scan. On two cores it takes at most 5 minutes, and the loop after it 3."""

    dataset: str
    iterations: int
    epochs: int
    simulated: float
    """Number of simulated pairs for each measured pair."""
    training_limit_s: float
    """On a slow machine the training's schedule is shortened to this time."""
    held_out: float
    rate_hz: float
    size: int = 128
    """Size of a simulated frame, pixels."""
    frames: int = 963
    """Frames of a simulated scan."""


REAL_PLAN = Plan(REAL, 30, epochs=12, simulated=4, training_limit_s=200, held_out=0.15, rate_hz=60.0)
SIMULATED_PLAN = Plan("simulated-128", 30, epochs=10, simulated=1, training_limit_s=200, held_out=0.15, rate_hz=60.0)
# The second sample has the opposite tone. A network that was trained on the first sample infers it wrongly. Etched
# shapes would also do (SSIM falls from 0.83 to 0.54), but learning them needs too many scans for a demonstration.
LOOP_PLAN = LoopPlan((LoopStage("letters", 2, 5, "judged"), LoopStage("raised", 3, 6, "suspended")))
ENDLESS_PLAN = LoopPlan(
    tuple(LoopStage(sample, 3, 12, "suspended") for sample in ("letters", "raised", "shapes")),
    endless=True,
    interval_s=20.0,
)


@dataclass
class Demo:
    """One run of the demonstration. It writes results and logs to `folder`.

    Attributes
    ----------
    quick
        Whether to run only the simulated loop.
    endless
        Whether to run only the simulated loop, until it is stopped.
    web
        Whether the loop goes on after the demonstration until it is stopped, for the page.
    offline
        Whether to simulate the scan instead of fetching the real one.
    stopping
        A context manager that returns an event which ends the loop early. The report is written then too.
    loop_plan
        Plan of the loop. None: the default for these settings.
    simulated_plan
        Plan of the simulated scan that replaces the real one.
    """

    folder: Path
    quick: bool = False
    offline: bool = False
    endless: bool = False
    web: bool = False
    console: Console = field(default_factory=lambda: Console(highlight=False))
    stopping: Callable[[], AbstractContextManager[threading.Event]] = lambda: nullcontext(threading.Event())
    loop_plan: LoopPlan | None = None
    simulated_plan: Plan = SIMULATED_PLAN
    steps_s: dict[str, float] = field(default_factory=dict)
    page_port: int = field(default_factory=lambda: free_ports(1)[0])

    def run(self) -> Report:
        """Run all steps. Raises PtychostreamError if one fails."""
        began = time.monotonic()
        (self.folder / "logs").mkdir(parents=True, exist_ok=True)
        plan = self.loop_plan or (ENDLESS_PLAN if self.endless or self.web else LOOP_PLAN)
        report = None
        if not (self.quick or self.endless):
            report = self._one_scan()
            self._write(report, began)  # so that there is a report if the loop fails
        with self._step("loop"), self.stopping() as stop:
            outcome, seconds = show_loop(plan, PREFIX, self.folder, self.console, stop, self.page_port)
            if outcome.stopped:
                self.console.print("  stopped; the report is about the part until now")
        if report is None:
            report = loop_report(plan, outcome, self.folder, seconds)
        else:
            report.loop = outcome.record.to_json()
        report.steps_s["loop"] = seconds
        self._write(report, began)
        return report

    def _write(self, report: Report, began: float) -> None:
        report.seconds = time.monotonic() - began
        write_json(report, self.folder / "report.json")
        write_html(report, self.folder / "report.html")

    def _one_scan(self) -> Report:
        """Reconstruct a scan, train on it, and stitch it live."""
        logs = self.folder / "logs"
        ports = free_ports(3)
        environment = loopback_environment(ports[:2], ports[2])
        with self._step("data"):
            plan, scan = self._data(logs, environment)
        reconstruction, model, area = (self.folder / name for name in ("epie.h5", "model.onnx", "untrained.npy"))
        with self._step("reconstruct"):
            self._command("reconstruct", scan, "-o", reconstruction, "--iterations", plan.iterations)
        with self._step("train"):
            words: list[object] = ["--reconstruction", reconstruction, "-o", model, "--epochs", plan.epochs]
            words += ["--schedule", "onecycle", "--lr", 2e-3, "--simulated", plan.simulated]
            words += ["--time-limit", plan.training_limit_s]
            trained = self._command("train", scan, *words, "--hold-out", plan.held_out, "--save-area", area)
        with self._step("stream"):
            stage = Stage(PREFIX, CHANNEL, environment, logs, self.page_port)
            live = self._stream(stage, plan, scan, model)
        with self._step("report"):
            return self._report(plan, reconstruction, np.load(area, allow_pickle=False), trained, live)

    # The steps

    def _data(self, logs: Path, environment: dict[str, str]) -> tuple[Plan, Path]:
        if not self.offline:
            try:
                return REAL_PLAN, datasets.fetch(REAL)
            except DatasetError as error:
                self.console.print(f"[yellow]The real scan is not available: {error}\nSimulating one instead.")
        plan = self.simulated_plan
        return plan, self._simulate(logs, environment, plan)

    def _simulate(self, logs: Path, environment: dict[str, str], plan: Plan) -> Path:
        folder = self.folder / "scans"
        words = ["beamline", "--prefix", "demo:", "--autostart", "--scans", "1", "--save", str(folder)]
        words += [
            "--size",
            str(plan.size),
            "--frames",
            str(plan.frames),
            "--rate",
            "2000",
            "--ca-port",
            environment["EPICS_CA_ADDR_LIST"].rpartition(":")[2],
        ]
        for old in folder.glob("*.h5"):
            old.unlink()
        with Child("ptychostream", words, logs / "beamline.log", environment) as child:
            child.wait(SIMULATION_TIMEOUT_S)
        scans = [path for path in sorted(folder.glob("*.h5")) if "truth" not in path.name]
        if not scans:
            raise DemoError("the simulated beamline wrote no scan", where=str(folder), remedy="see logs/beamline.log")
        return scans[0]

    def _stream(self, stage: Stage, plan: Plan, scan: Path, model: Path) -> Live:
        with open_scan(scan) as opened:
            total = len(opened)
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        with Progress(*columns, console=self.console) as progress:
            task = progress.add_task("starting the IOC", total=total)

            def ready(seconds: float, page: str) -> None:
                self.console.print(
                    f"  the IOC was ready after {seconds:.1f} s. From a second terminal, while it streams:"
                )
                self.console.print(client_lines(stage), style="cyan", soft_wrap=True)
                self.console.print(f"  and in a browser, also during the loop:\n{page}", style="cyan", soft_wrap=True)

            def shown(stitched: int, rate_hz: float, latency_ms: float) -> None:
                latency = "not known yet" if math.isnan(latency_ms) else f"{latency_ms:5.1f} ms"
                text = f"stitched live, {rate_hz:4.0f} frames/s, latency p50 {latency}"
                progress.update(task, completed=stitched, description=text)

            return stream(stage, scan, model, plan.rate_hz, ready, shown)

    def _report(
        self, plan: Plan, reconstruction: Path, area: NDArray[np.bool_], trained: dict[str, Any], live: Live
    ) -> Report:
        result = read_reconstruction(reconstruction)
        reference = result.phase_image()
        quality = compare(live.image, reference, area)
        refined = compare(live.refined, reference, area) if live.refined is not None else None
        over_time = {
            label: similarities(live.series, channel, reference, area)
            for label, channel in (("network, live", PHASE), ("refined, live", REFINED))
        }
        figure = refined_figure(reference, live.image, live.refined, area, over_time)
        figures.save_figure(figure, self.folder / FIGURE)
        return Report(
            dataset=plan.dataset,
            r_factor=result.r_factor,
            pearson_heldout=quality.pearson,
            ssim_heldout=quality.ssim,
            ssim_heldout_1px=quality.ssim_1px,
            ssim_refined=refined.ssim if refined is not None else None,
            frames=live.frames,
            rate_hz=live.rate_hz,
            latency_ms=live.latency_ms,
            engine=live.engine,
            model_version=live.model_version,
            training_frames=int(trained["training_frames"]),
            simulated_ratio=plan.simulated,
            heldout_frames=int(trained["heldout_frames"]),
            steps_s=dict(self.steps_s, ioc_ready=live.ready_s),
            machine={"cores": os.cpu_count()},
            versions=versions(),
        )

    # Running a step

    @contextmanager
    def _step(self, name: str) -> Iterator[None]:
        self.console.rule(f"[bold]{name}", align="left")
        began = time.monotonic()
        yield
        self.steps_s[name] = time.monotonic() - began
        self.console.print(f"  {name}: {self.steps_s[name]:.1f} s")

    def _command(self, *words: object) -> dict[str, Any]:
        """Run a command with its progress on this terminal's stderr. Returns its --json output."""
        texts = [str(word) for word in words]
        self.console.print(f"  $ ptychostream {' '.join(texts)}", style="dim", soft_wrap=True)
        line = child_command("ptychostream", [*texts, "--json"])
        done = subprocess.run(line, stdout=subprocess.PIPE, text=True, check=False)
        if done.returncode != 0:
            raise DemoError(
                f"`ptychostream {texts[0]}` ended with status {done.returncode}", remedy="see its message above"
            )
        found: dict[str, Any] = json.loads(done.stdout)
        return found


def client_lines(stage: Stage) -> str:
    """The commands for a second terminal that watches the stream."""
    by_ca, by_pva = ("FramesStitched_RBV", "LatencyP50_RBV"), ("ArrayRate_RBV", "Phase")
    return second_terminal(stage.environment, stage.prefix, by_ca, by_pva)
