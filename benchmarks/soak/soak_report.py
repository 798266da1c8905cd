"""The report of the soak as JSON, table and figure: growth, recovery times, violations."""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from ptychostream.benchmarks.soak.soak_rounds import Round
from ptychostream.benchmarks.soak.soak_watch import Sample
from ptychostream.quality.figures import save_figure
from ptychostream.storage.atomic import write_bytes_atomic

WARM_S = 300.0
"""The start of an IOC's life that is not judged for growth. After this time every fault has occurred, and each may have
raised the peak of the memory once (a backlog, a canvas). A shorter soak tells nothing about growth."""
MAX_GROWTH = 0.02
WINDOW = 0.2
"""Fraction of the judged time at its start and its end, whose medians are compared."""
MIN_JUDGED_S = 30.0


def growth(samples: Sequence[Sample], field: str, warm_s: float = WARM_S) -> float | None:
    """Relative growth of a figure of the IOC's process, over the longest life of an IOC.

    Parameters
    ----------
    samples
        Samples of all lives.
    field
        `rss`, `descriptors` or `threads`.
    warm_s
        Time at the start of that life that is left out.

    Returns
    -------
    float or None
        Ratio of the medians of the last and the first fifth of the judged time, minus one. None if it is too short.
    """
    longest: list[Sample] = []
    for life in {sample.life for sample in samples}:
        own = [sample for sample in samples if sample.life == life and sample.rss]
        if own and (not longest or own[-1].time_s - own[0].time_s > longest[-1].time_s - longest[0].time_s):
            longest = own
    judged = [sample for sample in longest if sample.time_s - longest[0].time_s >= warm_s]
    if not judged or judged[-1].time_s - judged[0].time_s < MIN_JUDGED_S:
        return None
    span = WINDOW * (judged[-1].time_s - judged[0].time_s)
    first = [getattr(sample, field) for sample in judged if sample.time_s <= judged[0].time_s + span]
    last = [getattr(sample, field) for sample in judged if sample.time_s >= judged[-1].time_s - span]
    return statistics.median(last) / statistics.median(first) - 1


def summarise(
    rounds: Sequence[Round],
    samples: Sequence[Sample],
    law: Sequence[tuple[float, int]],
    clients: dict[str, dict[str, Any]],
) -> dict[str, Any]:
    """The report. `violations` lists every failed check as a sentence."""
    violations = [f"{one.fault or 'in peace'}: {what}" for one in rounds for what in one.violations]
    violations += [f"the conservation law was off by {error} at {time_s:.1f}" for time_s, error in law]
    if clients.get("monitor", {}).get("violations"):
        violations.append(f"a CA client saw the law broken {clients['monitor']['violations']} times")
    if clients.get("writer", {}).get("wrong"):
        violations.append(f"{clients['writer']['wrong']} readbacks did not follow their setpoint")
    grown = {field: growth(samples, field) for field in ("rss", "descriptors", "threads")}
    for field, value in grown.items():
        if value is not None and value >= MAX_GROWTH:
            violations.append(f"{field} grew by {value:.1%}")
    answered = [sample for sample in samples if sample.rss]
    return {
        "violations": violations,
        "rounds": len(rounds),
        "seconds": samples[-1].time_s - samples[0].time_s if samples else 0.0,
        "frames": {
            name: sum(getattr(one, name) for one in rounds)
            for name in ("sent", "received", "stitched", "duplicates", "missed", "unseen")
        },
        "looks": {
            "law": sum(sample.error is not None for sample in samples),
            "unanswered": sum(sample.error is None for sample in samples),
        },
        "growth": grown,
        "warm_s": WARM_S,
        "rss_mb": [sample.rss / 1e6 for sample in (answered[0], answered[-1])] if answered else [],
        "faults": faults_table(rounds),
        "clients": clients,
    }


def faults_table(rounds: Sequence[Round]) -> dict[str, dict[str, Any]]:
    """For each fault: how often it occurred, recovery times, restarts, and counts of frames."""
    table: dict[str, dict[str, Any]] = {}
    for name in dict.fromkeys(one.fault for one in rounds):
        own = [one for one in rounds if one.fault == name]
        times = [one.recovery_s for one in own if one.recovery_s is not None]
        dropped: dict[str, int] = {}
        for one in own:
            for cause, count in one.dropped.items():
                if count:
                    dropped[cause] = dropped.get(cause, 0) + count
        table[name or "in peace"] = {
            "times": len(own),
            "recovery_s": {"median": statistics.median(times), "max": max(times)} if times else None,
            "restart_s": max(one.restart_s for one in own),
            **{field: sum(getattr(one, field) for one in own) for field in ("sent", "stitched", "missed", "unseen")},
            "dropped": dropped,
            "violations": sum(len(one.violations) for one in own),
        }
    return table


def write_report(folder: Path, report: dict[str, Any], rounds: Sequence[Round], samples: Sequence[Sample]) -> None:
    """report.json (with every round), report.md and figure.png. Raises OSError, ScanFileError."""
    whole = {**report, "each_round": [asdict(one) for one in rounds]}
    write_bytes_atomic(folder / "report.json", json.dumps(whole, indent=1).encode())
    write_bytes_atomic(folder / "report.md", as_text(report).encode())
    if samples:
        save_figure(time_line(rounds, samples), folder / "figure.png")


def as_text(report: dict[str, Any]) -> str:
    """The report as Markdown."""
    frames, grown = report["frames"], report["growth"]
    lines = [
        f"# Soak, {report['seconds'] / 60:.1f} minutes, seed {report.get('seed', '')}",
        "",
        f"{report['rounds']} rounds at {report.get('rate_hz', 0):g} frames/s: {frames['sent']} frames sent, "
        f"{frames['received']} received ({frames['duplicates']} of them twice), {frames['stitched']} stitched, "
        f"{frames['missed']} missed, {frames['unseen']} lost unseen with a process that was killed.",
        f"The conservation law was looked at {report['looks']['law']} times.",
        f"Growth of the IOC after warm-up: {', '.join(f'{name} {_share(value)}' for name, value in grown.items())}.",
        "",
        "| fault | times | back after (s) | longest (s) | start (s) | sent | stitched | missed | unseen | drops |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name, row in report["faults"].items():
        recovery = row["recovery_s"]
        median, longest = (f"{recovery['median']:.2f}", f"{recovery['max']:.2f}") if recovery else ("", "")
        restart = f"{row['restart_s']:.1f}" if row["restart_s"] > 0.5 else ""
        dropped = ", ".join(f"{cause} {count}" for cause, count in row["dropped"].items())
        lines.append(
            f"| {name} | {row['times']} | {median} | {longest} | {restart} | {row['sent']} | {row['stitched']} "
            f"| {row['missed']} | {row['unseen']} | {dropped} |"
        )
    lines += ["", "## Violations", ""]
    lines += [f"- {one}" for one in report["violations"]] or ["None."]
    return "\n".join([*lines, ""])


def _share(value: float | None) -> str:
    return "too short to say" if value is None else f"{value:+.2%}"


# ------------------------------------------------------------ figure

_COLOURS = ("#0072b2", "#d55e00", "#009e73")
_BAD, _FAULT = "#cc3311", "#bbbbbb"
_HEIGHTS = (2.0, 2.0, 1.0, 1.3, 1.3)


def time_line(rounds: Sequence[Round], samples: Sequence[Sample]) -> Figure:
    """Faults as bars and as shades; rates, pending frames, memory, descriptors and threads over time."""
    start = samples[0].time_s
    minutes = np.array([(sample.time_s - start) / 60 for sample in samples])
    figure = Figure(figsize=(14, 10), layout="constrained")
    names, rates, backlog, memory, counts = figure.subplots(5, 1, sharex=True, height_ratios=_HEIGHTS)
    _name_faults(names, rounds, start)
    for field, colour in zip(("sent", "received", "stitched"), _COLOURS, strict=True):
        rates.plot(minutes, rate_hz(samples, field), color=colour, linewidth=1.1, label=field)
    # after a stall the backlog is stitched much faster than the stream
    rates.set_ylim(0, 2.5 * max(float(np.nanpercentile(rate_hz(samples, "sent")[1:], 75)), 1.0) if rounds else None)
    rates.set_ylabel("frames/s")
    backlog.plot(minutes, _column(samples, "pending"), color=_COLOURS[0], linewidth=1.1)
    backlog.set_ylabel("pending frames")
    megabytes = _alive(samples, "rss") / 1e6
    memory.plot(minutes, megabytes, color=_COLOURS[0], linewidth=1.1)
    if np.isfinite(megabytes).any():  # leave out a process that starts
        memory.set_ylim(0.8 * float(np.nanmedian(megabytes)), 1.05 * float(np.nanmax(megabytes)))
    memory.set_ylabel("IOC's RSS (MB)")
    for field, colour in zip(("descriptors", "threads"), _COLOURS, strict=False):
        counts.plot(minutes, _alive(samples, field), color=colour, linewidth=1.1, label=field)
    counts.set_ylim(bottom=0)
    counts.set_ylabel("of the IOC")
    counts.set_xlabel("minutes")
    for axes in (rates, counts):
        axes.legend(loc="upper right", ncols=3, fontsize=8)
    bad = [(sample.time_s - start) / 60 for sample in samples if sample.error]
    for axes in (rates, backlog, memory, counts):
        axes.grid(alpha=0.25)
        axes.set_xlim(0, max(minutes[-1], 0.1))
        for one in rounds:
            if one.struck_s:
                span = ((one.struck_s - start) / 60, (one.healed_s - start) / 60)
                axes.axvspan(*span, color=_BAD if one.violations else _FAULT, alpha=0.45, lw=0)
        for minute in bad:
            axes.axvline(minute, color=_BAD, linewidth=1.5)
    figure.suptitle("Soak: faults shaded, red where something did not hold; red lines: the conservation law broken")
    return figure


def _name_faults(axes: Any, rounds: Sequence[Round], start: float) -> None:
    """Draw a row for each kind of fault, and a bar for each occurrence."""
    struck = [one for one in rounds if one.struck_s]
    kinds = list(dict.fromkeys(one.fault for one in struck))
    for row, kind in enumerate(kinds):
        for one in struck:
            if one.fault == kind:
                span = ((one.struck_s - start) / 60, max(one.healed_s - one.struck_s, 1.0) / 60)
                axes.broken_barh([span], (row - 0.4, 0.8), color=_BAD if one.violations else "#555555")
    axes.set_yticks(range(len(kinds)), kinds, fontsize=8)
    axes.set_ylim(max(len(kinds), 1) - 0.5, -0.5)
    axes.grid(axis="x", alpha=0.25)


def rate_hz(samples: Sequence[Sample], field: str) -> NDArray[np.float64]:
    """Rate of a count between two samples. NaN if the IOC did not answer or was restarted."""
    values, lives = _column(samples, field), _column(samples, "life")
    times = np.array([sample.time_s for sample in samples])
    rates = np.full(len(samples), np.nan)
    rates[1:] = np.diff(values) / np.diff(times)
    if field != "sent":
        rates[1:][np.diff(lives) != 0] = np.nan
    return rates


def _alive(samples: Sequence[Sample], field: str) -> NDArray[np.float64]:
    """A figure of the process. NaN if there is no process."""
    return np.where(_column(samples, "rss") > 0, _column(samples, field), np.nan)


def _column(samples: Sequence[Sample], field: str) -> NDArray[np.float64]:
    values = [getattr(sample, field) for sample in samples]
    return np.array([np.nan if value is None else value for value in values], np.float64)
