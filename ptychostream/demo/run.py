"""The demonstration, step by step: data, reconstruction, training, live stream, report."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from ptychostream import datasets, figures
from ptychostream.demo.live import Live, Stage, stream
from ptychostream.demo.processes import Child, DemoError
from ptychostream.demo.report import Report, versions, write_html, write_json
from ptychostream.errors import DatasetError
from ptychostream.loopback import free_ports, loopback_environment
from ptychostream.quality import compare
from ptychostream.reconstruction_file import read_reconstruction
from ptychostream.scan_files import open_scan

PREFIX = "ptycho:NN1:"
CHANNEL = "26id:det:Pva1:Image"
REAL = "26id-247"
SIMULATION_TIMEOUT_S = 120.0


@dataclass(frozen=True)
class Plan:
    """How much of everything: the real scan within 8 minutes on two cores, the quick one within 2."""

    dataset: str
    iterations: int
    epochs: int
    simulated: float
    """Simulated pairs for each measured one."""
    training_limit_s: float
    """The schedule is hurried through in this time on a slow machine."""
    held_out: float
    rate_hz: float


REAL_PLAN = Plan(REAL, 30, epochs=12, simulated=4, training_limit_s=300, held_out=0.15, rate_hz=60.0)
SIMULATED_PLAN = Plan("simulated-128", 30, epochs=10, simulated=1, training_limit_s=300, held_out=0.15, rate_hz=60.0)
QUICK_PLAN = Plan("simulated-64", 20, epochs=16, simulated=1, training_limit_s=60, held_out=0.15, rate_hz=200.0)


@dataclass
class Demo:
    """One run of the demonstration; results and logs go to `folder`."""

    folder: Path
    quick: bool = False
    offline: bool = False
    console: Console = field(default_factory=lambda: Console(highlight=False))
    steps_s: dict[str, float] = field(default_factory=dict)

    def run(self) -> Report:
        """Run every step. Raises PtychostreamError when one fails."""
        began = time.monotonic()
        logs = self.folder / "logs"
        logs.mkdir(parents=True, exist_ok=True)
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
            stage = Stage(PREFIX, CHANNEL, environment, logs)
            live = self._stream(stage, plan, scan, model)
        with self._step("report"):
            report = self._report(plan, reconstruction, np.load(area, allow_pickle=False), trained, live)
        report.seconds = time.monotonic() - began
        write_json(report, self.folder / "report.json")
        write_html(report, self.folder / "figure.png", self.folder / "report.html")
        return report

    # The steps

    def _data(self, logs: Path, environment: dict[str, str]) -> tuple[Plan, Path]:
        if self.quick:
            return QUICK_PLAN, self._simulate(logs, environment, size=64)
        if not self.offline:
            try:
                return REAL_PLAN, datasets.fetch(REAL)
            except DatasetError as error:
                self.console.print(f"[yellow]The real scan cannot be had: {error}\nSimulating one instead.")
        return SIMULATED_PLAN, self._simulate(logs, environment, size=128)

    def _simulate(self, logs: Path, environment: dict[str, str], size: int) -> Path:
        folder = self.folder / "scans"
        words = ["beamline", "--prefix", "demo:", "--autostart", "--scans", "1", "--save", str(folder)]
        words += [
            "--size",
            str(size),
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

            def ready(seconds: float) -> None:
                self.console.print(
                    f"  the IOC was ready after {seconds:.1f} s. From a second terminal, while it streams:"
                )
                self.console.print(client_lines(stage), style="cyan", soft_wrap=True)

            def shown(stitched: int, rate_hz: float, latency_ms: float) -> None:
                text = f"stitched live, {rate_hz:4.0f} frames/s, latency p50 {latency_ms:5.1f} ms"
                progress.update(task, completed=stitched, description=text)

            return stream(stage, scan, model, plan.rate_hz, ready, shown)

    def _report(
        self, plan: Plan, reconstruction: Path, area: NDArray[np.bool_], trained: dict[str, Any], live: Live
    ) -> Report:
        result = read_reconstruction(reconstruction)
        reference = result.phase_image()
        quality = compare(live.image, reference, area)
        figure = figures.comparison_figure(reference, live.image, area)
        figures.save_figure(figure, self.folder / "figure.png")
        return Report(
            dataset=plan.dataset,
            r_factor=result.r_factor,
            pearson_heldout=quality.pearson,
            ssim_heldout=quality.ssim,
            ssim_heldout_1px=quality.ssim_1px,
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

    # How a step runs

    @contextmanager
    def _step(self, name: str) -> Iterator[None]:
        self.console.rule(f"[bold]{name}", align="left")
        began = time.monotonic()
        yield
        self.steps_s[name] = time.monotonic() - began
        self.console.print(f"  {name}: {self.steps_s[name]:.1f} s")

    def _command(self, *words: object) -> dict[str, Any]:
        """Run a command whose progress goes to this terminal's stderr; returns what its --json printed."""
        texts = [str(word) for word in words]
        self.console.print(f"  $ ptychostream {' '.join(texts)}", style="dim", soft_wrap=True)
        line = [sys.executable, "-m", "ptychostream", *texts, "--json"]
        done = subprocess.run(line, stdout=subprocess.PIPE, text=True, check=False)
        if done.returncode != 0:
            raise DemoError(
                f"`ptychostream {texts[0]}` ended with status {done.returncode}", remedy="see its message above"
            )
        found: dict[str, Any] = json.loads(done.stdout)
        return found


def client_lines(stage: Stage) -> str:
    """What a second terminal types to watch: the environment, a CA and a PVA client."""
    environment = stage.environment
    names = ("EPICS_CA_ADDR_LIST", "EPICS_CA_AUTO_ADDR_LIST", "EPICS_PVA_ADDR_LIST", "EPICS_PVA_AUTO_ADDR_LIST")
    exports = [f"{name}='{environment[name]}'" for name in (*names, "EPICS_PVA_BROADCAST_PORT")]
    interpreter = Path(sys.executable)
    caproto = interpreter.parent / "caproto-monitor"
    return "\n".join(
        [
            f"    export {' '.join(exports)}",
            f"    {caproto} {stage.prefix}FramesStitched_RBV {stage.prefix}LatencyP50_RBV",
            f"    {interpreter} -m p4p.client.cli monitor {stage.prefix}ArrayRate_RBV {stage.prefix}Phase",
        ]
    )
