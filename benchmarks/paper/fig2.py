"""Figure 2: the stitched phase beside ePIE of the same scan, on patterns that no training area has."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.figure import Figure

from ptychostream.benchmarks.paper import instrument
from ptychostream.benchmarks.paper.learning import base_model
from ptychostream.benchmarks.paper.plots import COLOURS, flat, names_of, on_truth, panels
from ptychostream.benchmarks.paper.result import Result, Row
from ptychostream.benchmarks.paper.work import TestScan, Work
from ptychostream.quality.figure_panels import MICRO
from ptychostream.quality.figures import line_profile, most_varied_line
from ptychostream.quality.quality import compare

TITLE = "The stitched phase beside ePIE, on patterns that no training area has"
_MARGIN_M = 100e-9
"""The spiral's outermost frames cover its rim thinly."""


def scans(work: Work) -> dict[str, TestScan]:
    """The test scans by name: spirals of the paper's 963 points and 50 nm."""
    frames = work.scale.frames
    return {
        name: TestScan(work, f"fig2/{sample}", instrument.test_scan(sample, work.seed, frames=frames))
        for name, sample in instrument.TEST_SAMPLES.items()
    }


def radius_m(work: Work) -> float:
    """Radius of the area on which images are compared."""
    return float(np.sqrt(work.scale.frames / np.pi) * instrument.STEP_M - _MARGIN_M)


def make(work: Work) -> Result:
    """SSIM of the network, alone and refined, against ePIE and against the truth, on each pattern."""
    model = base_model(work)
    found: dict[str, Any] = {}
    for name, scan in scans(work).items():
        truth, epie, network = scan.truth(), scan.epie(work.scale.iterations), scan.stitched(model)
        refined = scan.refined(model, work.scale.refining)
        images = {"epie": epie, "network": network, "refined": refined}
        area, on_epie = (scan.disk(image, radius_m(work)) for image in (truth, epie))
        found[name] = {
            "against_truth": {kind: vars(compare(image, truth, area)) for kind, image in images.items()},
            "against_epie": {
                kind: vars(compare(image, epie, on_epie)) for kind, image in images.items() if kind != "epie"
            },
        }
    letters = found["letters"]["against_epie"]
    rows = [
        Row(
            "SSIM against ePIE, letters",
            "visually the same",
            letters["network"]["ssim"],
            letters["refined"]["ssim"],
            work.scale.lines.get("fig2"),
        )
    ]
    for name, values in found.items():
        if name != "letters":
            by = values["against_epie"]
            rows.append(Row(f"SSIM against ePIE, {name}", "–", by["network"]["ssim"], by["refined"]["ssim"]))
    for name, values in found.items():
        by = values["against_truth"]
        what = f"SSIM against the truth, {name} (ePIE {by['epie']['ssim']:.3f})"
        rows.append(Row(what, "–", by["network"]["ssim"], by["refined"]["ssim"]))
    return Result("fig2", TITLE, tuple(rows), {"patterns": found})


def draw(work: Work, result: Result) -> Figure:
    """ePIE, network and refined side by side, and their profiles along a line (as the paper's figure 2)."""
    model, names = base_model(work), names_of(work.scale.refining)
    figure = Figure(figsize=(13, 12.5), layout="constrained")
    grid = figure.add_gridspec(4, 3, height_ratios=[1, 1, 1, 0.62])
    for row, (name, scan) in enumerate(scans(work).items()):
        truth = scan.truth()
        area = scan.disk(truth, radius_m(work))
        values = result.data["patterns"][name]["against_truth"]
        images = (
            scan.epie(work.scale.iterations),
            scan.stitched(model),
            scan.refined(model, work.scale.refining),
        )
        titles = [f"{name}: {said}\nSSIM against the truth {values[kind]['ssim']:.3f}" for kind, said in names.items()]
        shown, true = [on_truth(image, truth, area) for image in images], flat(truth, area)
        line = most_varied_line(true, area)
        axes = [figure.add_subplot(grid[row, column]) for column in range(3)]
        panels(axes, shown, titles, true, line if row == 0 else None)
        if row == 0:
            profile = figure.add_subplot(grid[3, :])
            for picture, kind in zip([true, *shown], ("truth", *names), strict=True):
                distance, phase = line_profile(picture, line)
                profile.plot(distance * 1e6, phase, label=names.get(kind, kind), **COLOURS[kind])
            profile.set(xlabel=f"along the dashed line of {name} ({MICRO})", ylabel="phase (rad)")
            profile.margins(x=0)
            profile.grid(alpha=0.25)
            profile.legend(loc="upper center", bbox_to_anchor=(0.5, 1.2), ncols=4, frameon=False)
    return figure
