"""Supplementary figure 1: training counts scaled down, the network trained again, and the test at the same dose."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from ptychostream.benchmarks.paper import fig2, instrument
from ptychostream.benchmarks.paper.learning import base_model, learnt, options_of
from ptychostream.benchmarks.paper.plots import COLOURS, flat, on_truth, panels
from ptychostream.benchmarks.paper.result import Result, Row
from ptychostream.benchmarks.paper.work import TestScan, Work
from ptychostream.hpc_agent.training.batches import Dose
from ptychostream.quality.quality import compare

TITLE = "Fewer photons, in training and in the test"
FEW = 10
"""Photons in a frame's brightest pixel, of the paper's claim."""


def scan_of(work: Work, factor: float) -> TestScan:
    """The letters of figure 2 with `factor` of the photons."""
    if factor == 1:
        return fig2.scans(work)["letters"]
    settings = instrument.test_scan("letters", work.seed, frames=work.scale.frames, part=factor)
    return TestScan(work, f"s1/dose-{factor:.4g}", settings)


def model_of(work: Work, factor: float) -> Path:
    """The network for this dose: of the run's training, or trained again on thinned counts."""
    if factor == 1:
        return base_model(work)
    scale = work.scale
    again = {"epochs": scale.dose_epochs, "dose": Dose(factor=factor)}
    start = base_model(work) if scale.warm else None
    options = options_of(work).model_copy(update=again)
    return learnt(work, f"dose-{factor:.4g}", scale.dose_scans, options, start)


def measured(work: Work, factor: float) -> dict[str, Any]:
    """Photons in the brightest pixel of a frame (median), and SSIM of the network and of ePIE."""
    model, scan = model_of(work, factor), scan_of(work, factor)
    truth = scan.truth()
    area = scan.disk(truth, fig2.radius_m(work))
    return {
        "factor": factor,
        "peak": float(np.median(scan.scan().counts.max(axis=(1, 2)))),
        "photons": float(scan.scan().counts.sum(axis=(1, 2), dtype=np.float64).mean()),
        "network": compare(scan.stitched(model), truth, area).ssim,
        "epie": compare(scan.epie(work.scale.iterations), truth, area).ssim,
    }


def make(work: Work) -> Result:
    """The curve, and the accuracy at the largest dose with at most `FEW` photons in the brightest pixel."""
    points = [
        work.folder.json(f"points/s1/dose-{factor:.4g}", partial(measured, work, factor)) for factor in work.scale.doses
    ]
    few = [point for point in points if point["peak"] <= FEW]
    best = max(few, key=lambda point: point["peak"], default=None)
    peak = "" if best is None else f" ({best['peak']:.0f} photons)"
    rows = [
        Row(
            f"SSIM at no more than {FEW} photons in the brightest pixel{peak}",
            "above 0.80",
            None if best is None else best["network"],
            least=work.scale.lines.get("s1"),
        ),
        Row("SSIM of ePIE there", "–", None if best is None else best["epie"]),
        *(Row(f"SSIM at a dose × {point['factor']:.3g}", "–", point["network"]) for point in points),
    ]
    return Result("s1", TITLE, tuple(rows), {"points": points})


def draw(work: Work, result: Result) -> Figure:
    """SSIM by the photons in the brightest pixel, a pattern and the stitched phase of each dose."""
    points = result.data["points"]
    figure = Figure(figsize=(14, 10), layout="constrained")
    grid = figure.add_gridspec(3, len(points), height_ratios=[1.1, 1, 1])
    axes = figure.add_subplot(grid[0, :])
    for kind, label in (("epie", "ePIE"), ("network", "network, trained for this dose")):
        peaks = [point["peak"] for point in points]
        axes.plot(peaks, [point[kind] for point in points], marker="o", label=label, **COLOURS[kind])
    axes.axvline(FEW, color="0.5", linewidth=0.8, linestyle=":")
    axes.set_xscale("log")
    axes.set(xlabel="photons in the brightest pixel of a frame (median)", ylabel="SSIM against the truth", ylim=(0, 1))
    axes.grid(alpha=0.25, which="both")
    axes.legend(frameon=False)
    images, titles = [], []
    for column, point in enumerate(points):
        scan = scan_of(work, point["factor"])
        frame = np.asarray(scan.scan().counts[len(scan.scan()) // 2], np.float64)
        pattern = figure.add_subplot(grid[1, column])
        pattern.set(xticks=[], yticks=[])
        pattern.set_title(f"{point['photons']:,.0f} photons a frame", fontsize=11)
        drawn = pattern.imshow(np.sqrt(frame), cmap="magma")
        figure.colorbar(drawn, cax=pattern.inset_axes((1.03, 0, 0.04, 1)), label="√counts")
        truth = scan.truth()
        area = scan.disk(truth, fig2.radius_m(work))
        images.append(on_truth(scan.stitched(model_of(work, point["factor"])), truth, area))
        titles.append(f"network, SSIM {point['network']:.3f}")
        true = flat(truth, area)
    panels([figure.add_subplot(grid[2, column]) for column in range(len(points))], images, titles, true)
    return figure
