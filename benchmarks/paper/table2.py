"""Table 2: inference of one frame by the fastest engine, and by torch as it is."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.figure import Figure

from ptychostream.benchmarks.paper.result import Result, Row
from ptychostream.benchmarks.paper.speed import NAMES, engine_of, fastest, measured, microseconds
from ptychostream.benchmarks.paper.work import Work

TITLE = "Inference of one frame: the fastest engine, and torch"
PAPER_MS = {"ptychonn": (10.0, 15.0), "ptychonn2": (2.3, 8.0)}
"""ms in the paper, AGX Xavier: TensorRT, PyTorch."""


def make(work: Work) -> Result:
    """ms a frame of each network, by torch in float32 and by the fastest engine, and the gain."""
    rows, times = [], {}
    for network, name in NAMES.items():
        found = measured(work, network)
        best, torch = fastest(found, 1), fastest(found, 1, _is_torch)
        fast, slow = (microseconds(row) / 1000 for row in (best, torch))
        times[network] = {"engine": engine_of(best), "engine_ms": fast, "torch_ms": slow}
        paper = PAPER_MS.get(network)
        rows += [
            Row(f"{name}, {engine_of(best)}", f"{paper[0]:g} ms" if paper else "–", fast, unit=" ms"),
            Row(f"{name}, torch", f"{paper[1]:g} ms" if paper else "–", slow, unit=" ms"),
            Row(
                f"{name}, gain",
                f"{paper[1] / paper[0]:.2g}×" if paper else "–",
                slow / fast,
                least=work.scale.lines.get(f"table2 {network}"),
                unit="×",
            ),
        ]
    return Result("table2", TITLE, tuple(rows), {"times": times})


def _is_torch(row: dict[str, Any]) -> bool:
    return row["engine"] == "Torch" and row["precision"] == "float32"


def draw(_work: Work, result: Result) -> Figure:
    """Bars of both times, beside the paper's."""
    times = result.data["times"]
    bars = {
        "paper, TensorRT": ("0.75", [PAPER_MS.get(network, (np.nan,))[0] for network in NAMES]),
        "paper, PyTorch": ("0.5", [PAPER_MS.get(network, (np.nan, np.nan))[1] for network in NAMES]),
        "here, fastest engine": ("#d55e00", [times[network]["engine_ms"] for network in NAMES]),
        "here, torch": ("black", [times[network]["torch_ms"] for network in NAMES]),
    }
    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.add_subplot()
    width = 0.8 / len(bars)
    for index, (label, (colour, values)) in enumerate(bars.items()):
        drawn = axes.bar(np.arange(len(NAMES)) + (index - 1.5) * width, values, width, color=colour, label=label)
        axes.bar_label(drawn, ["" if np.isnan(value) else f"{value:.2g}" for value in values], fontsize=9)
    axes.set_xticks(range(len(NAMES)), list(NAMES.values()))
    axes.set_ylabel("time of one frame (ms)")
    axes.set_axisbelow(True)
    axes.grid(alpha=0.25, axis="y")
    axes.legend(frameon=False, ncols=2, loc="lower center", bbox_to_anchor=(0.5, 1))
    return figure
