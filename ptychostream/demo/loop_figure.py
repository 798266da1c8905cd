"""Draw the time line of the loop (SSIM, losses, live models, corpus, policy), and the live images of the scans."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from ptychostream.demo.loop_record import LoopRecord
from ptychostream.imaging.phase_image import PhaseImage
from ptychostream.imaging.registration import align, measured_area
from ptychostream.quality.figure_panels import crop, phase_limits, phase_panel
from ptychostream.quality.figures import on_grid

MODES = {
    "Bootstrap": "#f4a742",
    "Active": "#4c9be8",
    "Suspended": "#63b36b",
    "Paused": "#b0b0b0",
    "Offline": "#e6e6e6",
}
SAMPLES = ("#ffffff", "#ece6f5")
SSIM, LOSS, VERSION, CORPUS = "#c2255c", "#1864ab", "#2b2b2b", "#5c5c5c"
MOST_NAMES = 14
"""The largest number of version labels on the axis. If there are more, every second or third has a label."""


def loop_figure(record: LoopRecord) -> Figure:
    """Draw `record`. The time is in minutes from its start."""
    figure = Figure(figsize=(12, 11), layout="constrained")
    ratios = [3.2, 1.9, 2.6, 1.3, 0.45]
    panels = figure.subplots(5, 1, sharex=True, gridspec_kw={"height_ratios": ratios})
    ssim, loss, version, corpus, policy = panels
    _samples(record, panels, ssim)
    _ssim(record, ssim)
    _losses(record, loss)
    _versions(record, version)
    _corpus(record, corpus)
    _policy(record, policy)
    for axes in panels[:-1]:
        for model in record.models:
            axes.axvline(_minutes(record, model.time_s), color="#9a9a9a", linewidth=0.8, linestyle=":", zorder=0)
        axes.grid(alpha=0.25)
    policy.set_xlim(0, max(_minutes(record, record.ended_s), 0.1))
    policy.set_xlabel("time (min); dotted: a new model is live at the edge")
    figure.align_ylabels(panels)
    return figure


def _minutes(record: LoopRecord, time_s: float) -> float:
    return (time_s - record.began_s) / 60


def _samples(record: LoopRecord, panels: list[Axes], top: Axes) -> None:
    """Draw the kinds of sample as a background with labels at the top."""
    changes = [
        (scan.began_s, scan.sample)
        for number, scan in enumerate(record.scans)
        if number == 0 or scan.sample != record.scans[number - 1].sample
    ]
    for number, ((start_s, sample), (end_s, _)) in enumerate(pairwise([*changes, (record.ended_s, "")])):
        first = _minutes(record, start_s) if number else 0.0
        last = _minutes(record, end_s)
        for axes in panels[:-1]:
            axes.axvspan(first, last, color=SAMPLES[number % 2], zorder=-1)
            if number:
                axes.axvline(first, color="#7a5aa8", linewidth=1.4, zorder=0)
        text = f"sample: {sample}" if number == 0 else f"new sample: {sample}"
        top.annotate(
            text,
            ((first + last) / 2, 1.0),
            xytext=(0, 4),
            xycoords=("data", "axes fraction"),
            textcoords="offset points",
            ha="center",
            va="bottom",
            fontsize=10,
            color="#5b3f8c",
        )


def _ssim(record: LoopRecord, axes: Axes) -> None:
    for number, (time_s, value) in enumerate(record.tolerance):
        label = "1 \N{MINUS SIGN} tolerance: retrain below" if number + 1 == len(record.tolerance) else None
        end_s = record.tolerance[number + 1][0] if number + 1 < len(record.tolerance) else record.ended_s
        span = [max(0.0, _minutes(record, time_s)), _minutes(record, end_s)]
        if span[1] - span[0] < 0.02 * _minutes(record, record.ended_s):  # the value before it was set
            continue
        axes.plot(span, [1 - value] * 2, color="black", linewidth=1.1, linestyle="--", label=label)
    complete = {scan.scan: scan.complete_s for scan in record.scans}
    times = [_minutes(record, complete.get(judged.scan, judged.time_s)) for judged in record.judged]
    values = [judged.value for judged in record.judged]
    label = "SSIM of the live stitched phase against ePIE, at 1 px resolution"
    axes.plot(times, values, "o-", color=SSIM, linewidth=1.4, markersize=6, label=label)
    axes.plot(
        times,
        [judged.ssim for judged in record.judged],
        "o:",
        color=SSIM,
        alpha=0.45,
        linewidth=1,
        markersize=3,
        label="the same, as it is",
    )
    for time, value, judged in zip(times, values, record.judged, strict=True):
        text = f"{value:.2f}\n{judged.version}"
        axes.annotate(
            text,
            (time, value),
            xytext=(0, 8),
            textcoords="offset points",
            ha="center",
            va="bottom",
            fontsize=7.5,
            bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.75, "pad": 0.8},
        )
    for scan in record.scans:
        if not scan.version:
            place = (_minutes(record, scan.complete_s), 0.02)
            axes.annotate(
                f"{scan.scan}: no model", place, xycoords=("data", "axes fraction"), ha="left", fontsize=8, rotation=90
            )
    low, high = axes.get_ylim()
    axes.set_ylim(max(-0.05, low - 0.03), min(1.12, high + 0.12))
    axes.set_ylabel("SSIM\n(live model's version)")
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.08), ncols=3, fontsize=8, frameon=False)


def _losses(record: LoopRecord, axes: Axes) -> None:
    """Draw the losses. The line is interrupted between two trainings."""
    for model in record.models:
        if model.seconds is None:
            continue
        span = [loss for loss in record.losses if model.time_s - model.seconds <= loss[0] <= model.time_s]
        if span:
            axes.plot(
                [_minutes(record, time_s) for time_s, _ in span],
                [value for _, value in span],
                ".-",
                color=LOSS,
                linewidth=1.1,
                markersize=5,
            )
        axes.plot(_minutes(record, model.time_s), model.validation_loss, "D", color=LOSS, markersize=5)
    axes.plot([], [], ".-", color=LOSS, label="by epoch (Agent:ValLoss)")
    axes.plot([], [], "D", color=LOSS, linestyle="none", label="of the model that went live")
    axes.set_ylabel("validation loss (rad)")
    axes.legend(loc="upper right", fontsize=8, framealpha=0.9)


def _versions(record: LoopRecord, axes: Axes) -> None:
    names = ["none", *dict.fromkeys(model.version for model in record.models)]
    times = [0.0, *(_minutes(record, model.time_s) for model in record.models), _minutes(record, record.ended_s)]
    places = [0, *(names.index(model.version) for model in record.models)]
    axes.step(times, [*places, places[-1]], where="post", color=VERSION, linewidth=1.8)
    for model, place in zip(record.models, places[1:], strict=True):
        axes.plot(_minutes(record, model.time_s), place, "o", color=VERSION, markersize=4)
        axes.annotate(
            "back" if model.seconds is None else f"{model.seconds:.0f} s",
            (_minutes(record, model.time_s), place),
            xytext=(-5, 2),
            textcoords="offset points",
            ha="right",
            va="bottom",
            fontsize=8,
            color="#5c5c5c",
        )
    every = math.ceil(len(names) / MOST_NAMES)
    axes.set_yticks(range(0, len(names), every), names[::every], fontsize=8)
    axes.set_ylim(-0.5, len(names) - 0.2)
    axes.set_ylabel("live model\n(s from scan to live)")


def _corpus(record: LoopRecord, axes: Axes) -> None:
    times = [0.0, *(_minutes(record, time_s) for time_s, _ in record.corpus), _minutes(record, record.ended_s)]
    pairs = [0, *(pairs for _, pairs in record.corpus)]
    axes.step(times, [*pairs, pairs[-1]], where="post", color=CORPUS, linewidth=1.8)
    axes.fill_between(times, [*pairs, pairs[-1]], step="post", color=CORPUS, alpha=0.15)
    axes.set_ylim(0, max(1.0, 1.15 * pairs[-1]))
    axes.yaxis.set_major_locator(MaxNLocator(4, integer=True))
    axes.set_ylabel("corpus (pairs)")


def _policy(record: LoopRecord, axes: Axes) -> None:
    moments = [*(change.time for change in record.policy), record.ended_s]
    for change, (start_s, end_s) in zip(record.policy, pairwise(moments), strict=True):
        start, end = _minutes(record, start_s), _minutes(record, end_s)
        axes.axvspan(start, end, color=MODES.get(change.state, "#ffffff"))
        if end - start > 0.04 * _minutes(record, record.ended_s):
            axes.text((start + end) / 2, 0.5, change.state, ha="center", va="center", fontsize=9)
    axes.set_yticks([])
    axes.set_ylim(0, 1)
    axes.set_ylabel("policy", rotation=0, ha="right", va="center")
    seen = dict.fromkeys(change.state for change in record.policy)
    handles = [Patch(color=MODES.get(state, "#ffffff"), label=state) for state in seen]
    place = (0.0, -1.1)
    axes.legend(handles=handles, fontsize=8, frameon=False, loc="upper left", bbox_to_anchor=place, ncols=len(handles))


def images_figure(rows: Sequence[tuple[str, PhaseImage, PhaseImage | None]]) -> Figure:
    """Draw the live images in a row, with their reconstructions below. Each column has one colour scale."""
    figure = Figure(figsize=(1.9 * len(rows) + 0.6, 4.6), layout="constrained")
    panels = figure.subplots(2, len(rows), squeeze=False)
    for column, (name, live, made) in enumerate(rows):
        upper, lower = panels[0, column], panels[1, column]
        if made is None:
            phase_panel(upper, live, colour_bar=False)
            lower.axis("off")
        else:
            aligned = align(live, made)
            limits = phase_limits(np.where(aligned.mask, aligned.reference, np.nan))
            measured = measured_area(made)
            for axes, phase in ((upper, aligned.image), (lower, aligned.reference)):
                phase_panel(axes, on_grid(made, measured, phase), limits=limits, colour_bar=False)
                crop(axes, made, measured)
        upper.set_title(name, fontsize=8)
    panels[0, 0].set_ylabel("live", fontsize=10)
    panels[1, 0].set_ylabel("ePIE, afterwards", fontsize=10)
    return figure
