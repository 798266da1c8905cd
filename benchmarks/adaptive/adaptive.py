"""`ptychostream bench adaptive`: the similarity of an adaptive scan's phase to the truth, by the number of its points.

A network is trained on simulated scans of every kind of sample, or read from a file. For samples that it has not seen,
the full scan is stitched, and parts of it: every k-th point, points that are spread evenly, and points that
`ptychostream.adaptive.scan.AdaptiveScan` chooses from the pictures so far. All have the same patterns, network and
truth, so that the choice of the points is the only difference.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from ptychostream.adaptive.maps import unseen
from ptychostream.adaptive.next_points import next_points
from ptychostream.adaptive.scan import AdaptiveScan
from ptychostream.hpc_agent.corpus.training_data import Source
from ptychostream.hpc_agent.training.model_job import train_model
from ptychostream.hpc_agent.training.training import TrainingOptions
from ptychostream.imaging.geometry import wavelength_m
from ptychostream.imaging.phase_image import PhaseImage
from ptychostream.imaging.stitching import Canvas
from ptychostream.model.contract import ModelContract
from ptychostream.model.model_file import Infer, ModelFile, load_model
from ptychostream.plugins.engines import create_engine
from ptychostream.quality.offline_inference import stitch_scan
from ptychostream.quality.quality import compare
from ptychostream.scans.scan import Reconstruction, Scan
from ptychostream.sim.diffraction import Simulation, simulate_scan

SAMPLES = ("shapes", "letters", "raised", "siemens")
FRACTIONS = (0.25, 0.375, 0.5, 0.75)
"""Parts of the full scan's points that are compared."""
_BATCH = 32
_UNSEEN = 100
"""The seeds of the judged samples begin here; those of the training begin at 0."""

Pick = Callable[[int], NDArray[np.intp]]
Stitch = Callable[[NDArray[np.intp]], PhaseImage]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--frames", type=int, default=400, help="points of the full scan (default %(default)s)")
    parser.add_argument("--step", type=float, default=80, metavar="NM", help="its step in nm (default %(default)s)")
    parser.add_argument("--dose", type=float, default=1e6, help="photons per frame (default %(default)s)")
    parser.add_argument("--model", type=Path, metavar="ONNX", help="model of 64 × 64 frames; none: one is trained")
    parser.add_argument("--scans", type=int, default=2, help="training scans of each sample (default %(default)s)")
    parser.add_argument("--epochs", type=int, default=20, help="epochs of the training (default %(default)s)")
    parser.add_argument("--train-seconds", type=float, default=150, help="its time limit (default %(default)s)")
    parser.add_argument("--repeats", type=int, default=3, help="judged samples of each kind (default %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="default %(default)s")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(arguments: argparse.Namespace) -> int:
    console = Console(stderr=True)
    base = Simulation(size=64, frames=arguments.frames, step_m=arguments.step * 1e-9, dose=arguments.dose)
    model = load_model(arguments.model) if arguments.model else trained(base, arguments, console)
    engine = create_engine("Auto", model, batch=_BATCH)
    found: dict[str, Any] = {}
    for sample in SAMPLES:
        runs = []
        for repeat in range(arguments.repeats):
            seed = _UNSEEN + arguments.seed + repeat
            settings = base.model_copy(update={"sample": sample, "sample_seed": seed, "seed": seed})
            runs.append(judge(model.contract, engine.infer, *simulate_scan(settings)))
            console.print(f"{sample} {seed}: {_line(runs[-1])}")
        found[sample] = runs
    engine.close()
    content = {"frames": arguments.frames, "step_nm": arguments.step, "dose": arguments.dose, "samples": found}
    content |= {"model": model.contract.name, "network": model.contract.network, "engine": engine.name}
    if arguments.json:
        print(json.dumps(content, indent=2))
    else:
        _show(found)
    return 0


def trained(base: Simulation, arguments: argparse.Namespace, console: Console) -> ModelFile:
    """A network for all kinds of sample, trained on the simulation's own truth."""
    sources = []
    for number in range(arguments.scans * len(SAMPLES)):
        seed = arguments.seed * 1000 + number
        update = {"sample": SAMPLES[number % len(SAMPLES)], "sample_seed": seed, "seed": seed}
        scan, truth = simulate_scan(base.model_copy(update=update), f"training {number}")
        sources.append(Source(replace(scan, probe=None), truth))
    options = TrainingOptions(
        epochs=arguments.epochs,
        time_limit_s=arguments.train_seconds,
        learning_rate=2e-3,
        schedule="onecycle",
        seed=arguments.seed,
    )
    with TemporaryDirectory() as folder, Progress(console=console) as progress:
        task = progress.add_task("training", total=options.epochs)
        path = Path(folder, "model.onnx")
        train_model(sources, path, options, on_epoch=lambda epoch: progress.update(task, completed=epoch.number))
        return load_model(path)


def judge(contract: ModelContract, infer: Infer, scan: Scan, truth: Reconstruction) -> dict[str, Any]:
    """SSIM of the full scan, and by the fraction of its points of each way to choose them."""
    reference, frames = truth.phase_image(), len(scan)
    whole, patches = infer_all(contract, infer, scan)
    weight = contract.weight()

    def stitch(points: NDArray[np.intp]) -> PhaseImage:
        canvas = Canvas(whole.pixel_m, weight)
        canvas.add_batch(patches[points], scan.positions_m[points])
        return canvas.image()

    def ssim(image: PhaseImage) -> dict[str, float]:
        quality = compare(image, reference)
        return {"ssim": quality.ssim, "ssim_1px": quality.ssim_1px}

    beam_m = beam_of(truth)
    ways: dict[str, Callable[[int], PhaseImage]] = {
        "every k-th": lambda count: stitch(np.unique(np.linspace(0, frames - 1, count).round().astype(int))),
        "even": lambda count: stitch(evenly(scan.positions_m, beam_m, count)),
        "adaptive": lambda count: adaptively(scan.positions_m, beam_m, count, stitch),
    }
    full = ssim(whole.image())
    parts = {
        name: {fraction: ssim(way(round(fraction * frames))) for fraction in FRACTIONS} for name, way in ways.items()
    }
    return {"full": full, "parts": parts}


def infer_all(contract: ModelContract, infer: Infer, scan: Scan) -> tuple[Canvas, NDArray[np.float32]]:
    """The canvas of all frames, and the patch [N, h, w] of each."""
    patches: list[NDArray[np.float32]] = []

    def kept(counts: NDArray[np.float32], dose_scale: float) -> NDArray[np.float32]:
        patches.append(infer(counts, dose_scale).copy())
        return patches[-1]

    canvas = stitch_scan(replace(scan, probe=None), contract, kept, batch=_BATCH)
    return canvas, np.concatenate(patches)


def beam_of(truth: Reconstruction) -> float:
    """Diameter of the beam in the simulation, metres, by geometrical optics."""
    settings = Simulation.model_validate(truth.provenance["simulation"])
    return settings.optics.beam_m(wavelength_m(settings.energy_ev))


def evenly(points_m: NDArray[np.float64], beam_m: float, count: int) -> NDArray[np.intp]:
    """Points that are chosen without a picture."""
    none = np.zeros(len(points_m), np.bool_)
    return next_points(points_m, none, unseen(points_m, beam_m), beam_m, count)


def adaptively(points_m: NDArray[np.float64], beam_m: float, count: int, stitch: Stitch) -> PhaseImage:
    """The stitched phase of an adaptive scan with this budget."""
    scan = AdaptiveScan(points_m, beam_m, count)
    while len(points := scan.next()):
        measured = np.append(np.flatnonzero(scan.measured), points)
        image = stitch(measured)
        scan.took(points, image, len(measured))
    return image


def _line(result: dict[str, Any]) -> str:
    half = {name: part[0.5]["ssim"] for name, part in result["parts"].items()}
    told = ", ".join(f"{name} {value:.4f}" for name, value in half.items())
    return f"full {result['full']['ssim']:.4f}; with half of its points: {told}"


def _show(found: dict[str, Any]) -> None:
    table = Table("sample", "points", *FRACTIONS_SHOWN, title="SSIM to the truth, mean over the samples of a kind")
    for sample, runs in found.items():
        full = float(np.mean([run["full"]["ssim"] for run in runs]))
        for name in runs[0]["parts"]:
            means = [float(np.mean([run["parts"][name][f]["ssim"] for run in runs])) for f in FRACTIONS]
            table.add_row(sample, name, *(f"{value:.4f}" for value in means), f"{full:.4f}")
    Console().print(table)


FRACTIONS_SHOWN = (*(f"{fraction:.1%}" for fraction in FRACTIONS), "all")
