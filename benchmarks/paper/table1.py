"""Table 1: inference time of a frame by the batch."""

from __future__ import annotations

from matplotlib.figure import Figure

from ptychostream.benchmarks.paper.result import Result, Row
from ptychostream.benchmarks.paper.speed import BATCHES, NAMES, engine_of, fastest, measured, microseconds
from ptychostream.benchmarks.paper.work import Work

TITLE = "Inference of a 128 × 128 frame by the batch, the fastest engine that is here"
PAPER_US = {"RTX A6000": (370, 220, 130, 90, 70), "AGX Xavier": (2300, 1360, 960, 850, 680)}
"""µs a frame in the paper, by device, for each of `BATCHES`."""
NETWORKS = ("ptychonn2", "swiftnn")
_COMPARED = 8
"""The batch at which the networks are compared: that of the paper's live runs."""


def make(work: Work) -> Result:
    """µs a frame of each network and batch, and how much faster swiftnn is on the same engine."""
    rows = {network: measured(work, network) for network in NETWORKS}
    found = []
    for index, batch in enumerate(BATCHES):
        paper = " / ".join(f"{times[index]} µs" for times in PAPER_US.values())
        for network in NETWORKS:
            best = fastest(rows[network], batch)
            found.append(
                Row(f"{NAMES[network]}, batch {batch}, {engine_of(best)}", paper, microseconds(best), unit=" µs")
            )
    ratios = {engine_of(row): fastest_ratio(rows, engine_of(row)) for row in rows[NETWORKS[0]]}
    slowest = min(ratios, key=lambda engine: ratios[engine])
    what = f"frames/s of swiftnn over PtychoNN 2.0's, batch {_COMPARED}, least of the engines ({slowest})"
    found.append(Row(what, "–", ratios[slowest], least=work.scale.lines.get("table1"), unit="×"))
    return Result("table1", f"{TITLE} ({' / '.join(PAPER_US)})", tuple(found), {"measured": rows, "ratios": ratios})


def fastest_ratio(rows: dict[str, list[dict[str, object]]], engine: str) -> float:
    """Frames a second of the second network over the first one's, on one engine and precision."""
    first, second = (
        fastest(rows[network], _COMPARED, lambda row: engine_of(row) == engine)["frames_per_second"]
        for network in NETWORKS
    )
    return float(second / first)


def draw(_work: Work, result: Result) -> Figure:
    """Time a frame by the batch, beside the paper's devices."""
    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.add_subplot()
    for (device, times), style in zip(PAPER_US.items(), ("s--", "d--"), strict=True):
        axes.plot(BATCHES, times, style, color="0.55", label=f"paper, {device}")
    for network, colour in zip(NETWORKS, ("black", "#d55e00"), strict=True):
        here = [microseconds(fastest(result.data["measured"][network], batch)) for batch in BATCHES]
        axes.plot(BATCHES, here, "o-", color=colour, label=f"here, {NAMES[network]}")
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.set_xticks(BATCHES, [str(batch) for batch in BATCHES])
    axes.set(xlabel="batch (frames)", ylabel="time a frame (µs)")
    axes.grid(alpha=0.25, which="both")
    axes.legend(frameon=False, ncols=2, loc="lower center", bbox_to_anchor=(0.5, 1))
    return figure
