"""`ptychostream bench warm-start`: iterations of ePIE to the same error, with and without the live canvas.

There are two scans. The first is reconstructed, and a network is trained on it. The network infers the second scan,
which is then reconstructed from three starts: a flat object and the probe of a scan without history; a flat object and
the first scan's probe; the network's canvas and that probe. With real data the two scans are parts of one scan whose
labels share no pixel, so network and probe do not depend on the patterns of the second part.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from ptychostream.benchmarks.reconstruction import phase_of
from ptychostream.datasets.fetching import fetch
from ptychostream.hpc_agent.corpus.training_data import Source, label_extent_m, spatial_split
from ptychostream.hpc_agent.reconstruct import ReconstructOptions, reconstruct
from ptychostream.hpc_agent.reconstruct.choice import create_engine
from ptychostream.hpc_agent.training.export import predict
from ptychostream.hpc_agent.training.model_job import TrainedModel, train_model
from ptychostream.hpc_agent.training.training import TrainingOptions
from ptychostream.imaging.phase_image import PhaseImage
from ptychostream.quality.figures import save_figure
from ptychostream.quality.offline_inference import stitch_scan
from ptychostream.quality.quality import compare
from ptychostream.reconstruct.grid import ObjectGrid
from ptychostream.reconstruct.prepare import prepare
from ptychostream.reconstruct.start import object_from_phase
from ptychostream.scans.scan import Reconstruction, Scan
from ptychostream.scans.scan_files import open_scan
from ptychostream.sim.diffraction import Simulation, simulate_scan

STARTS = ("flat", "probe", "canvas and probe")
MARKS = (2, 3, 5, 10, 20, 40, 80)
"""Iterations of the flat start whose errors the other starts must reach."""
STEPS_M = (50e-9, 150e-9)
"""Steps of the second simulated scan: the same as the first scan's, and one with little overlap."""
FIGURES = ("r_factor", "ssim", "ssim_1px", "pearson")
REAL = "26id-247"
APART_M = 6e-6
"""Distance between the centres of the two simulated scans."""
SECOND_PART = 0.4
"""Fraction of the real scan's frames in the second scan."""


@dataclass(frozen=True)
class Second:
    """A second scan, and the reference for its reconstructions."""

    name: str
    scan: Scan
    reference: PhaseImage


@dataclass(frozen=True)
class Case:
    """A first scan for the training, and the scans after it."""

    name: str
    first: Scan
    seconds: list[Second]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--frames", type=int, default=600, help="positions of a simulated scan (default %(default)s)")
    parser.add_argument("--iterations", type=int, default=40, help="iterations of every start (default %(default)s)")
    parser.add_argument("--epochs", type=int, default=20, help="epochs of the training (default %(default)s)")
    parser.add_argument(
        "--train-seconds", type=float, default=120, help="time limit of each training (default %(default)s)"
    )
    parser.add_argument("--real", action=argparse.BooleanOptionalAction, default=True, help=f"{REAL} too")
    parser.add_argument("--simulated", action=argparse.BooleanOptionalAction, default=True, help="simulated scans")
    parser.add_argument("--seed", type=int, default=0, help="default %(default)s")
    parser.add_argument("--figure", type=Path, metavar="PNG", help="draw the errors of each iteration")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(arguments: argparse.Namespace) -> int:
    console = Console(stderr=True)
    cases = []
    if arguments.simulated:
        cases.append(simulated_case(arguments.frames, arguments.seed))
    if arguments.real:
        cases.append(real_case())
    training = TrainingOptions(
        epochs=arguments.epochs,
        time_limit_s=arguments.train_seconds,
        learning_rate=2e-3,
        schedule="onecycle",
        simulated=3,
        seed=arguments.seed,
    )
    results: dict[str, Any] = {}
    for case in cases:
        results |= measure(case, arguments.iterations, training, console)
    content = {"iterations": arguments.iterations, "cores": os.cpu_count(), "cases": results}
    if arguments.figure:
        save_figure(figure(results), arguments.figure)
    if arguments.json:
        print(json.dumps(content, indent=2))
    else:
        _show(results)
    return 0


def simulated_case(frames: int, seed: int) -> Case:
    """Two places of one sample. The second is scanned with several steps over the same area."""
    settings = Simulation(size=64, frames=frames, sample_seed=seed, seed=seed)
    seconds = []
    for step_m in STEPS_M:
        fewer = max(20, round(frames * (settings.step_m / step_m) ** 2))
        there = {"centre_m": (APART_M, 0.0), "seed": seed + 1, "step_m": step_m, "frames": fewer}
        scan, truth = simulate_scan(settings.model_copy(update=there), "second")
        name = f"simulated, steps of {step_m * 1e9:.0f} nm"
        seconds.append(Second(name, _without_probe(scan), truth.phase_image()))
    return Case("simulated", _without_probe(simulate_scan(settings, "first")[0]), seconds)


def real_case() -> Case:
    """Two parts of the real scan. The reference is a long reconstruction of the complete scan."""
    with open_scan(fetch(REAL)) as file:
        whole = replace(_without_probe(file), counts=np.asarray(file.counts[:]))
    made = reconstruct(whole, ReconstructOptions(iterations=60))
    size = whole.counts.shape[-1] // 2
    split = spatial_split(whole.positions_m, label_extent_m(size, made.pixel_m), SECOND_PART)
    margin = made.provenance["options"]["margin"]
    grid = ObjectGrid.around(whole.positions_m, made.pixel_m, 2 * size, margin).part(split.held_out)
    seen = grid.accumulate((np.abs(made.probe) ** 2).sum(axis=0))
    image = replace(made.phase_image(), weight=seen)
    second = Second(REAL, _part(whole, split.held_out, "second"), image)
    return Case(REAL, _part(whole, split.train, "first"), [second])


def measure(case: Case, iterations: int, training: TrainingOptions, console: Console) -> dict[str, Any]:
    """For each scan the errors of every start by iteration, and the iterations that reach the flat start's errors."""
    options = ReconstructOptions(iterations=iterations, device="cpu")
    last = reconstruct(case.first, options)
    began = time.perf_counter()
    trained = _train(case, last, training, console)
    network = {"epochs": len(trained.result.history), "seconds": time.perf_counter() - began}
    found = {}
    for second in case.seconds:
        infer = partial(predict, trained.result.network)
        canvas = stitch_scan(second.scan, trained.contract, infer, batch=32).image()
        runs = _runs(second, options, last, canvas, console)
        quality = compare(canvas, second.reference)
        found[second.name] = {
            "first_frames": len(case.first),
            "second_frames": len(second.scan),
            "size": second.scan.counts.shape[-1],
            "network": network,
            "canvas": {"ssim": quality.ssim, "ssim_1px": quality.ssim_1px, "pearson": quality.pearson},
            "starts": runs,
            "to_the_same": {name: to_the_same(runs["flat"], runs[name]) for name in STARTS[1:]},
        }
    return found


def _train(case: Case, last: Reconstruction, training: TrainingOptions, console: Console) -> TrainedModel:
    with TemporaryDirectory() as folder, Progress(console=console) as progress:
        task = progress.add_task(f"{case.name}: training", total=training.epochs)
        return train_model(
            [Source(case.first, last)],
            Path(folder, "model.onnx"),
            training,
            on_epoch=lambda epoch: progress.update(task, completed=epoch.number),
        )


def _runs(
    second: Second, options: ReconstructOptions, last: Reconstruction, canvas: PhaseImage, console: Console
) -> dict[str, Any]:
    starts: dict[str, tuple[Any, Any]] = {
        "flat": (None, None),
        "probe": (None, last.probe),
        "canvas and probe": (partial(object_from_phase, canvas), last.probe),
    }
    with Progress(console=console) as progress:
        task = progress.add_task(f"{second.name}: reconstructing", total=options.iterations * len(starts))
        return {
            name: _follow(second, options, object_, probe, lambda: progress.advance(task))
            for name, (object_, probe) in starts.items()
        }


def _follow(
    second: Second, options: ReconstructOptions, object_: Any, probe: Any, advance: Callable[[], None]
) -> dict[str, Any]:
    """The errors of each iteration from one start."""
    began = time.perf_counter()
    ready = prepare(second.scan, options, object_, probe, create_engine=create_engine)
    prepared_s = time.perf_counter() - began
    engine = create_engine(ready.problem, options)
    random = np.random.default_rng(options.seed)
    found: dict[str, list[float]] = {name: [] for name in FIGURES}
    iterating_s = 0.0
    for iteration in range(1, options.iterations + 1):
        order = random.permutation(len(ready.positions_m))
        began = time.perf_counter()
        found["r_factor"].append(engine.iterate(order, iteration > options.probe_start).r_factor)
        iterating_s += time.perf_counter() - began
        quality = compare(phase_of(engine, ready.problem, options), second.reference)
        for name in FIGURES[1:]:
            found[name].append(getattr(quality, name))
        advance()
    return {**found, "prepared_s": prepared_s, "seconds_per_iteration": iterating_s / options.iterations}


def to_the_same(flat: dict[str, Any], other: dict[str, Any]) -> dict[str, dict[int, int | None]]:
    """For each figure and iteration of the flat start the first iteration of the other that is as good, or None."""
    marks = [mark for mark in MARKS if mark <= len(flat["r_factor"])]
    table: dict[str, dict[int, int | None]] = {}
    for name in FIGURES:
        sign = -1 if name == "r_factor" else 1
        values = sign * np.array(other[name])
        table[name] = {}
        for mark in marks:
            reached = np.flatnonzero(values >= sign * flat[name][mark - 1])
            table[name][mark] = int(reached[0]) + 1 if len(reached) else None
    return table


def _part(scan: Scan, frames: NDArray[np.intp], name: str) -> Scan:
    return Scan(
        scan_id=name,
        counts=scan.counts[frames],
        positions_m=scan.positions_m[frames],
        energy_ev=scan.energy_ev,
        distance_m=scan.distance_m,
        detector_pixel_m=scan.detector_pixel_m,
        radiation=scan.radiation,
        bad_pixels=scan.bad_pixels,
    )


def _without_probe(scan: Scan) -> Scan:
    """The scan without its probe."""
    return replace(scan, probe=None)


def figure(results: dict[str, Any]) -> Figure:
    """Draw R factor and SSIM by iteration, with a row for each case."""
    drawn = Figure(figsize=(10.5, 3.6 * len(results)), layout="constrained")
    rows = drawn.subplots(len(results), 2, squeeze=False)
    for (case, result), (errors, likeness) in zip(results.items(), rows, strict=True):
        for (name, found), style in zip(result["starts"].items(), ("k-", "C0--", "C3-"), strict=True):
            iterations = np.arange(1, len(found["r_factor"]) + 1)
            errors.loglog(iterations, found["r_factor"], style, label=name)
            likeness.semilogx(iterations, found["ssim_1px"], style, label=name)
        errors.set_ylabel("R factor")
        likeness.set_ylabel("SSIM at 1 px resolution")
        likeness.axhline(result["canvas"]["ssim_1px"], color="C3", linewidth=0.8, linestyle=":", label="the canvas")
        errors.set_title(f"{case}: {result['second_frames']} frames of {result['size']}×{result['size']}", fontsize=11)
        for panel in (errors, likeness):
            panel.set_xlabel("iteration")
            panel.grid(alpha=0.25, which="both")
        likeness.legend(loc="lower right", fontsize=9)
    drawn.suptitle("ePIE from a flat start, from the last probe, and from the live canvas and the last probe")
    return drawn


def _show(results: dict[str, Any]) -> None:
    for case, result in results.items():
        table = Table("figure", "flat start", *(f"from {name}" for name in STARTS[1:]), title=f"{case}: iterations")
        for name in FIGURES:
            for mark, _ in result["to_the_same"]["probe"][name].items():
                reached = (result["to_the_same"][start][name][mark] for start in STARTS[1:])
                table.add_row(name, str(mark), *("never" if found is None else str(found) for found in reached))
        Console().print(table)
