"""The figure of `bench gpu`: time of inference by batch size beside the paper's, and ePIE's error over time."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import ScalarFormatter

PAPER_BATCHES = (1, 2, 4, 8, 16)
PAPER_US = {"RTX A6000 (paper)": (370, 220, 130, 90, 70), "AGX Xavier (paper)": (2300, 1360, 960, 850, 680)}
"""µs per frame of PtychoNN 2.0 with 128×128 pixels: Babu et al., Table 1."""


def gpu_figure(report: dict[str, Any]) -> Figure:
    """Draw the report of `bench gpu`. A panel without a finished step says so."""
    steps = report["steps"]
    drawn = Figure(figsize=(11, 4.6), layout="constrained")
    inference, epie = drawn.subplots(1, 2)
    _inference(inference, steps.get("inference", {}).get("gave"))
    _epie(epie, {name: steps.get(name, {}).get("gave") for name in ("epie", "epie-cpu")})
    device = report["machine"]["device"]
    drawn.suptitle(f"{device.get('chip', device['name'])}, torch {device['torch']}")
    return drawn


def _inference(axes: Axes, gave: dict[str, Any] | None) -> None:
    axes.set_title("inference of PtychoNN 2.0", fontsize=11)
    axes.set_xlabel("batch (frames)")
    axes.set_ylabel("time per frame (µs)")
    if gave is None:
        _nothing(axes)
        return
    rows = [row for row in gave["results"] if row["network"] == "ptychonn2"]
    names = dict.fromkeys((row["engine"], row["precision"]) for row in rows)
    for number, (engine, precision) in enumerate(names):
        mine = sorted((row["batch"], 1e6 / row["frames_per_second"]) for row in rows if _is(row, engine, precision))
        style = ("o-", "s--", "^:")[number // 10 % 3]
        axes.plot(*np.transpose(mine), style, color=f"C{number % 10}", label=f"{engine} {precision}", markersize=4)
    for (name, times), style in zip(PAPER_US.items(), ("k-", "k--"), strict=True):
        axes.plot(PAPER_BATCHES, times, style, linewidth=1, label=name)
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter(ScalarFormatter())
    axes.set_yscale("log")
    axes.grid(alpha=0.25, which="both")
    axes.legend(fontsize=7, ncols=2)


def _epie(axes: Axes, gave: dict[str, dict[str, Any] | None]) -> None:
    axes.set_title("ePIE", fontsize=11)
    axes.set_xlabel("time (s)")
    axes.set_ylabel("R factor")
    done = {name: found for name, found in gave.items() if found is not None}
    if not done:
        _nothing(axes)
        return
    for name, found in done.items():
        seconds = found["seconds_per_iteration"] * np.arange(1, len(found["errors"]) + 1)
        label = f"{name}, {found['engine']}: {1e3 * found['seconds_per_iteration']:.3g} ms an iteration"
        axes.plot(seconds, found["errors"], ".-", linewidth=1, label=label)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.grid(alpha=0.25, which="both")
    axes.legend(fontsize=8)


def _is(row: dict[str, Any], engine: str, precision: str) -> bool:
    return bool(row["engine"] == engine and row["precision"] == precision)


def _nothing(axes: Axes) -> None:
    axes.text(0.5, 0.5, "not measured", transform=axes.transAxes, ha="center", va="center")
