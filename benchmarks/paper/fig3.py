"""Figure 3: accuracy by the overlap of the frames, of the network and of ePIE, and what area and dose that gains."""

from __future__ import annotations

from functools import partial
from typing import Any

from matplotlib.figure import Figure

from ptychostream.benchmarks.paper import instrument
from ptychostream.benchmarks.paper.curves import area_factor, least_overlap
from ptychostream.benchmarks.paper.learning import base_model
from ptychostream.benchmarks.paper.plots import COLOURS, flat, names_of, on_truth, panels
from ptychostream.benchmarks.paper.result import Result, Row
from ptychostream.benchmarks.paper.work import TestScan, Work
from ptychostream.quality.quality import compare

TITLE = "Accuracy by the overlap of the frames, on letters that no training area has"
LEVELS = {0.80: 6.25, 0.90: 25.0}
"""SSIM, and the paper's factor of area and dose at it."""
_MARGIN_M = 0.3e-6
"""The rim of the area, which the outermost frames of a sparse spiral cover in part."""
_SHOWN = 4


def scan_of(work: Work, overlap: float) -> TestScan:
    """A spiral over the area, with the step of this overlap. The sample is the same for all."""
    step_m = instrument.step_of(overlap)
    frames = instrument.frames_within(work.scale.radius_m, step_m)
    settings = instrument.test_scan("letters", work.seed, frames=frames, step_m=step_m)
    return TestScan(work, f"fig3/overlap-{overlap:.1f}", settings)


def measured(work: Work, overlap: float) -> dict[str, Any]:
    """SSIM against the truth of each way of imaging, on the same disk, and the part of it that each covers."""
    scan, model = scan_of(work, overlap), base_model(work)
    truth = scan.truth()
    area = scan.disk(truth, work.scale.radius_m - _MARGIN_M)
    images = {
        "epie": scan.epie(work.scale.iterations),
        "network": scan.stitched(model),
        "refined": scan.refined(model, work.scale.refining),
    }
    found: dict[str, Any] = {"overlap": overlap, "step_m": instrument.step_of(overlap), "frames": scan.frames}
    for kind, image in images.items():
        quality = compare(image, truth, area)
        found[kind] = {"ssim": quality.ssim, "ssim_1px": quality.ssim_1px, "covered": quality.covered}
    return found


def make(work: Work) -> Result:
    """The curves, the accuracy without overlap, and the factors of area and dose."""
    points = [
        work.folder.json(f"points/fig3/overlap-{overlap:.1f}", partial(measured, work, overlap))
        for overlap in work.scale.overlaps
    ]
    last = points[-1]
    rows = [
        Row(
            f"SSIM at overlap {last['overlap']:g}",
            "0.90 in the text, above 0.80 in the figure",
            last["network"]["ssim"],
            last["refined"]["ssim"],
            work.scale.lines.get("fig3 no overlap"),
        ),
        Row(f"SSIM of ePIE at overlap {last['overlap']:g}", "fails from 0.3 on", last["epie"]["ssim"]),
        Row(f"part of the area in it at overlap {last['overlap']:g}", "–", last["network"]["covered"]),
    ]
    overlaps = [point["overlap"] for point in points]
    curves = {kind: [point[kind]["ssim"] for point in points] for kind in ("epie", "network", "refined")}
    reached = {
        kind: {level: least_overlap(overlaps, curve, level) for level in LEVELS} for kind, curve in curves.items()
    }
    for level, paper in LEVELS.items():
        ours, refined = (area_factor(reached[kind][level], reached["epie"][level]) for kind in ("network", "refined"))
        what = f"area for the same frames, and dose, where SSIM is {level:.2f}"
        least = work.scale.lines.get(f"fig3 area at {level:.2f}")
        rows.append(Row(what, f"{paper:g}×", ours, refined, least, "×"))
    worst = min(curves["network"])
    own = area_factor(overlaps[-1], least_overlap(overlaps, curves["epie"], worst))
    rows.append(Row(f"the same at the lowest SSIM of the network, {worst:.2f}", "–", own, unit="×"))
    least_by_kind = {kind: {f"{level:.2f}": at for level, at in levels.items()} for kind, levels in reached.items()}
    return Result("fig3", TITLE, tuple(rows), {"points": points, "least_overlap": least_by_kind})


def draw(work: Work, result: Result) -> Figure:
    """SSIM by overlap, and the images of some overlaps below (as the paper's figure 3)."""
    points, model = result.data["points"], base_model(work)
    shown = [points[round(index)] for index in _spread(len(points), _SHOWN)]
    figure = Figure(figsize=(13, 12), layout="constrained")
    grid = figure.add_gridspec(3, len(shown), height_ratios=[1.15, 1, 1])
    axes = figure.add_subplot(grid[0, :])
    names = names_of(work.scale.refining)
    for kind, name in names.items():
        overlaps = [point["overlap"] for point in points]
        axes.plot(overlaps, [point[kind]["ssim"] for point in points], marker="o", label=name, **COLOURS[kind])
    for level in LEVELS:
        axes.axhline(level, color="0.5", linewidth=0.8, linestyle=":")
    axes.set(xlabel=f"overlap, 1 − step / {instrument.BEAM_M * 1e9:.0f} nm", ylabel="SSIM against the truth")
    axes.set_ylim(min(0.0, *axes.get_ylim()), 1.0)
    axes.invert_xaxis()
    axes.grid(alpha=0.25)
    axes.legend(loc="lower left", frameon=False)
    frames = axes.secondary_xaxis("top")
    frames.set_xticks([point["overlap"] for point in points], [str(point["frames"]) for point in points])
    frames.set_xlabel(f"frames on a disk of {work.scale.radius_m * 2e6:.1f} µm")
    for row, kind in ((1, "epie"), (2, "network")):
        images, titles = [], []
        for point in shown:
            scan = scan_of(work, point["overlap"])
            image, truth = scan.epie(work.scale.iterations) if kind == "epie" else scan.stitched(model), scan.truth()
            area = scan.disk(truth, work.scale.radius_m)
            images.append(on_truth(image, truth, area))
            true = flat(truth, area)
            titles.append(f"{names[kind].partition(',')[0]}, overlap {point['overlap']:.1f}: {point[kind]['ssim']:.2f}")
        panels([figure.add_subplot(grid[row, column]) for column in range(len(shown))], images, titles, true)
    return figure


def _spread(count: int, wanted: int) -> list[float]:
    """Indices from the first to the last, at most `wanted`."""
    wanted = min(wanted, count)
    return [index * (count - 1) / max(1, wanted - 1) for index in range(wanted)]
