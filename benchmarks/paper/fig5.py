"""Figure 5: the error as training goes on with more and more scans, on features like the training's and on others.

Each stage begins with the network of the stage before, and has all scans so far. Two ways side by side, with the same
number of pairs shown to the network: measured pairs alone, as in the paper, and with a simulated pair for each.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from ptychostream.benchmarks.paper import fig2, instrument
from ptychostream.benchmarks.paper.learning import learnt, options_of
from ptychostream.benchmarks.paper.plots import flat, on_truth, panels
from ptychostream.benchmarks.paper.result import Result, Row
from ptychostream.benchmarks.paper.work import TestScan, Work
from ptychostream.imaging.registration import align
from ptychostream.quality.quality import measure

TITLE = "Continual training: the error by the measured pairs"
WAYS = {"measured": 0.0, "simulated": 1.0}
"""Simulated pairs for each measured one."""
_STYLES = {"measured": "--", "simulated": "-"}
_COLOURS = {"like": "#0072b2", "unseen": "#d55e00"}
_FEATURES = {"like": "features like the training's", "unseen": "letters"}


def scans(work: Work) -> dict[str, TestScan]:
    """A scan of etched shapes that no training area has, and the letters of figure 2."""
    like = instrument.test_scan(instrument.TRAINING_SAMPLE, work.seed, frames=work.scale.frames)
    return {"like": TestScan(work, "fig5/like", like), "unseen": fig2.scans(work)["letters"]}


def model_of(work: Work, way: str, stage: int) -> Path:
    """The network after a stage."""
    count, ratio = work.scale.stages[stage], WAYS[way]
    epochs = work.scale.stage_epochs * (1 if ratio else 2)  # the same number of pairs in each way
    options = options_of(work).model_copy(update={"simulated": ratio, "epochs": epochs})
    start = model_of(work, way, stage - 1) if stage else None
    return learnt(work, f"continual-{way}-{count:03d}", count, options, start)


def measured(work: Work, way: str, stage: int) -> dict[str, Any]:
    """Mean absolute error (rad) and SSIM against the truth, on both scans."""
    model = model_of(work, way, stage)
    found: dict[str, Any] = {"pairs": work.scale.stages[stage] * work.scale.frames}
    for kind, scan in scans(work).items():
        truth = scan.truth()
        aligned = align(scan.stitched(model), truth, scan.disk(truth, fig2.radius_m(work)))
        error = float(np.abs(aligned.image - aligned.reference)[aligned.mask].mean())
        found[kind] = {"error_rad": error, "ssim": measure(aligned).ssim}
    return found


def make(work: Work) -> Result:
    """The curves, and whether half the pairs suffice where pairs are simulated, too."""
    stages = range(len(work.scale.stages))
    curves = {
        way: [
            work.folder.json(
                f"points/fig5/{way}-{work.scale.stages[stage]:03d}",
                partial(measured, work, way, stage),
            )
            for stage in stages
        ]
        for way in WAYS
    }
    last, rows = curves["measured"][-1], []
    for kind, name in _FEATURES.items():
        for way in WAYS:
            what = f"error on {name}, {last['pairs']:,} pairs, {_words(way)}"
            rows.append(Row(what, "–", curves[way][-1][kind]["error_rad"], unit=" rad"))
    half = [point for point in curves["simulated"] if 2 * point["pairs"] <= last["pairs"] * 1.05]
    if half:
        gain = half[-1]["unseen"]["ssim"] - last["unseen"]["ssim"]
        what = (
            f"SSIM on letters of {half[-1]['pairs']:,} pairs and simulated ones, minus that of {last['pairs']:,} pairs"
        )
        rows.append(Row(what, "–", gain, least=work.scale.lines.get("fig5")))
    return Result("fig5", TITLE, tuple(rows), {"curves": curves})


def _words(way: str) -> str:
    return "with simulated pairs" if WAYS[way] else "measured pairs alone"


def draw(work: Work, result: Result) -> Figure:
    """The error by the pairs, and the letters after each stage."""
    curves, stages = result.data["curves"], range(len(work.scale.stages))
    figure = Figure(figsize=(max(9, 3.6 * len(stages)), 9), layout="constrained")
    grid = figure.add_gridspec(2, len(stages), height_ratios=[1.1, 1])
    axes = figure.add_subplot(grid[0, :])
    for way, points in curves.items():
        for kind, name in _FEATURES.items():
            pairs, errors = [point["pairs"] for point in points], [point[kind]["error_rad"] for point in points]
            axes.plot(pairs, errors, "o", linestyle=_STYLES[way], color=_COLOURS[kind], label=f"{name}, {_words(way)}")
    axes.set(xlabel="measured pairs", ylabel="mean absolute error (rad)", ylim=(0, None))
    axes.grid(alpha=0.25)
    axes.legend(frameon=False)
    scan = scans(work)["unseen"]
    truth = scan.truth()
    area = scan.disk(truth, fig2.radius_m(work))
    images = [on_truth(scan.stitched(model_of(work, "simulated", stage)), truth, area) for stage in stages]
    titles = [f"{point['pairs']:,} pairs, SSIM {point['unseen']['ssim']:.3f}" for point in curves["simulated"]]
    panels([figure.add_subplot(grid[1, stage]) for stage in stages], images, titles, flat(truth, area))
    return figure
