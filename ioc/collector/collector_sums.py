"""The figures of a cluster, from the accounts of its consumers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ptychostream.errors import DropCause, GeometryError
from ptychostream.ioc.collector.collector_accounts import ConsumerAccounts, Consumer, Sums
from ptychostream.plugins.consumer.consumer_report import EngineReport, Report
from ptychostream.plugins.flow.figures import counted, figures, largest
from ptychostream.plugins.stage_times import Latencies, StageTimes
from ptychostream.imaging.stitching import Canvas, CanvasState


class ConsumersTimes(StageTimes):
    """The latency to the canvas is that of the slowest consumer: percentiles cannot be added up."""

    stitched: tuple[float, float, float] = (float("nan"),) * 3

    def latencies(self) -> Latencies:
        return replace(super().latencies(), stitched_ms=self.stitched)


@dataclass(frozen=True)
class Zero:
    """The counts at the time when the counters were set to zero; frames under way then count as received."""

    sums: Sums = field(default_factory=Sums)
    missed: int = 0

    @classmethod
    def at(cls, accounts: ConsumerAccounts, now: float) -> Zero:
        """The counts at `now`."""
        sums = accounts.sums(now)
        return cls(sums, accounts.missed(now) + sums.lost)


@dataclass(frozen=True)
class ClusterFigures:
    """The figures of a cluster that an IOC without consumers does not have.

    Attributes
    ----------
    live, expected
        Consumers.
    restarts
        Processes that have replaced another process.
    lost
        Frames that a consumer held when it died; they are among the missed.
    twice
        Frames that two consumers' canvases hold.
    state_age_s
        Age of the oldest state of a live consumer: what it has had since would be lost with it.
    held_images
        Images that the detector's server held when the consumers subscribed.
    contradiction
        What the frames of a consumer say that its model denies, and since when, s since the POSIX epoch.
    lines
        One line for each consumer.
    """

    live: int = 0
    expected: int = 0
    restarts: int = 0
    lost: int = 0
    twice: int = 0
    state_age_s: float = 0.0
    held_images: int = 0
    contradiction: tuple[str, float] = ("", 0.0)
    lines: tuple[str, ...] = ()


def add_up(
    accounts: ConsumerAccounts,
    live: Sequence[Consumer],
    now: float,
    zero: Zero,
    refused: str,
    kind: type[Report] = Report,
) -> dict[str, Any]:
    """Fields of `ptychostream.plugins.flow.snapshot.Snapshot`, over all consumers.

    A figure that declares how it is added up needs no line here.

    Parameters
    ----------
    accounts
        The reports of the consumers.
    live, now
        The consumers that report, and the time for which that was decided, monotonic s.
    zero
        The counts to subtract.
    refused
        Why a canvas could not be added up; empty where all were.
    kind
        Of the reports.
    """
    sums, before = accounts.sums(now), zero.sums
    dropped = {cause: sums.dropped[cause] - before.dropped[cause] for cause in DropCause}
    received = sums.received - before.received + before.pending
    stitched = sums.stitched - before.stitched
    reports = [consumer.latest for consumer in live]
    group = accounts.current
    added: dict[str, Any] = {}
    for name, (_, figure) in figures(kind).items():
        if figure.over_consumers is counted:
            added[name] = sums.counts.get(name, 0) - before.counts.get(name, 0)
        elif figure.over_consumers is not None:
            added[name] = figure.over_consumers([getattr(report, name) for report in reports])
    counts = [(r.mean_counts, r.stitched_hz) for r in reports if not math.isnan(r.mean_counts)]
    rate = sum(hz for _, hz in counts)
    law = received == stitched + sums.pending + sum(dropped.values()) and all(r.law_holds for r in reports)
    active = group is not None and not group.ended and any(share.run.active for share in group.shares.values())
    running = running_engine(reports)
    return {
        **added,
        "received": received,
        "stitched": stitched,
        "pending": sums.pending,
        "dropped": dropped,
        "law_holds": law,
        "missed": accounts.missed(now) + sums.lost - zero.missed,
        "queue_size": added["queue_size"] or 1,
        "scan": group.scan if group is not None else "",
        "scan_active": active,
        "scan_stitched": group.patches if group is not None else 0,
        "engine": running.name if running else "",
        "model": running.model if running else "",
        "mean_counts": sum(mean * hz for mean, hz in counts) / rate if rate else largest(mean for mean, _ in counts),
        "message": _message(accounts, live, refused),
    }


def running_engine(reports: Sequence[Report]) -> EngineReport | None:
    """The engine of the first consumer that runs one."""
    return next((report.engine for report in reports if report.engine.name), None)


def describe_consumers(accounts: ConsumerAccounts, live: Sequence[Consumer], now: float, zero: Zero) -> ClusterFigures:
    """The figures of each consumer, and of all."""
    lines, ages = [], []
    alive = {consumer.number for consumer in live}
    for number in accounts.numbers:
        consumer = accounts.newest(number)
        if consumer is None:
            lines.append(f"{number}: never heard of")
            continue
        report = consumer.latest
        if number in alive and consumer.state is not None and report.run.received:
            ages.append(report.time - consumer.state.time)
        engine = f"{report.engine.name} {report.engine.model}".strip() or report.model_failure
        lines.append(
            f"{number}: {'live' if number in alive else 'gone'}, {report.received} received, "
            f"{report.stitched} stitched, {report.pending} pending, {report.all_dropped} dropped, "
            f"{report.stitched_hz:.0f} frames/s, {engine}"
        )
    return ClusterFigures(
        live=len(live),
        expected=len(accounts.numbers),
        restarts=accounts.restarts,
        lost=accounts.sums(now).lost - zero.sums.lost,
        twice=accounts.twice(),
        state_age_s=max(0.0, max(ages, default=0.0)),
        held_images=sum(consumer.latest.held_images for consumer in live),
        contradiction=_contradiction(live),
        lines=tuple(lines),
    )


def _message(accounts: ConsumerAccounts, live: Sequence[Consumer], refused: str) -> str:
    """The most serious fault; empty where there is none."""
    alive = {consumer.number for consumer in live}
    dead = [str(number) for number in accounts.numbers if number not in alive]
    if dead:
        return f"no report of consumer {', '.join(dead)}"
    if refused:
        return refused
    engines = {f"{e.name} {e.version} {e.precision}" for e in (consumer.latest.engine for consumer in live) if e.name}
    if len(engines) > 1:
        return f"consumers run {', '.join(sorted(engines))}: the canvas depends on who had which frame"
    said = next((consumer for consumer in live if consumer.latest.message), None)
    return f"consumer {said.number}: {said.latest.message}" if said is not None else ""


def _contradiction(live: Sequence[Consumer]) -> tuple[str, float]:
    reports = [consumer.latest for consumer in live if consumer.latest.contradiction]
    first = min(reports, key=lambda report: report.contradicts_since, default=None)
    return (first.contradiction, first.contradicts_since) if first is not None else ("", 0.0)


def merge_canvases(states: Sequence[CanvasState], max_pixels: int) -> tuple[Canvas, str]:
    """The canvases added up, at least one, and why one was left out: it has another pixel size, or is too large."""
    spread = all(state.square is not None for state in states if state.patches)
    merged, refused = Canvas(states[0].pixel_m, [[1.0]], max_pixels, spread), ""
    for state in states:
        try:
            merged.merge_state(state)
        except GeometryError as error:
            refused = f"a consumer's canvas does not fit the others': {error.what}"
    return merged, refused


def lies_in(changes: Mapping[str, object], settings: Mapping[str, object]) -> bool:
    """Whether every change is to what is there already."""
    return all(
        lies_in(value, inner) if isinstance(value, Mapping) and isinstance(inner, Mapping) else value == inner
        for name, value in changes.items()
        for inner in (settings.get(name),)
    )
