"""The runs of scans in a cluster: the sum of their canvases, and their figures, kept as a pipeline keeps its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ptychostream.ioc.collector.collector_accounts import ConsumerAccounts, Consumer, Group
from ptychostream.ioc.collector.collector_slot import contract_of
from ptychostream.ioc.collector.collector_sums import merge_canvases, running_engine
from ptychostream.plugins.flow.scan_boundary import BoundarySettings
from ptychostream.plugins.flow.scan_runs import FlowRun, FlowRuns
from ptychostream.plugins.flow.snapshot import RunFigures
from ptychostream.plugins.mosaic import Mosaic, RunCanvas


class ClusterRuns:
    """One run for each group of the accounts. Passive; the caller holds its lock, except for `merge`.

    Parameters
    ----------
    scans
        Only `keep` and `keep_bytes` are used.
    max_pixels
        Limit of a canvas.

    Attributes
    ----------
    mosaic
        The canvases, which any thread may read.
    refused
        Why a consumer's canvas could not be added; empty where all were.
    merges
        How often a canvas was made anew.
    """

    def __init__(self, scans: BoundarySettings, max_pixels: int) -> None:
        self.runs = FlowRuns(scans.keep, scans.keep_bytes)
        self.mosaic = Mosaic(max_pixels)
        self.refused = ""
        self.merges = 0
        self._max_pixels = max_pixels
        self._missed: dict[int, int] = {}  # frame ids that no consumer has had, by run

    def figures(self) -> tuple[RunFigures, ...]:
        """The accounting of every kept run, newest first."""
        return tuple(self._figures(run) for run in reversed(self.runs.oldest_first))

    def take_ended(self) -> list[tuple[RunFigures, RunCanvas | None]]:
        """Figures and canvases of the runs that have ended; each is given once."""
        return [(self._figures(run), self.mosaic.canvas(run.number)) for run in self.runs.take_ended()]

    def update(self, groups: Sequence[Group], accounts: ConsumerAccounts, live: Sequence[Consumer], now: float) -> None:
        """Bring the figures of every kept run up to date; frames that died with a consumer are not pending."""
        instances = {consumer.instance for consumer in live}
        kept = {run.number: run for run in self.runs.oldest_first}
        for group in groups:
            run = kept.get(group.number)
            if run is None or not group.shares:
                continue
            run.ledger.show(group.patches, group.dropped, group.pending(instances))
            run.first_time, run.last_time = group.began or None, group.latest or None
            self._missed[run.number] = accounts.missed_of(group, now)
        self.trim()

    def trim(self) -> None:
        """Forget the runs and canvases beyond the limits."""
        kept = self.runs.trim(self.mosaic.sizes())
        self.mosaic.retain(kept)
        self._missed = {number: missed for number, missed in self._missed.items() if number in kept}

    def merge(self, group: Group, live: Sequence[Consumer], dose_scale: float) -> None:
        """Make the group's canvas anew from all its consumers' canvases."""
        states = group.canvases()
        if not states:
            return
        merged, self.refused = merge_canvases(states, self._max_pixels)
        newest = max(group.shares.values(), key=lambda share: share.run.latest)
        engine = running_engine([consumer.latest for consumer in live if consumer.latest.engine.pixel_m])
        if engine is not None:
            contract = contract_of(replace(engine, pixel_m=merged.pixel_m))
            shown = self.mosaic.canvas()
            if shown is None or shown.contract != contract:
                self.mosaic.adopt(contract, f"{engine.name} {engine.version}".strip())
        self.mosaic.begin(group.number, group.scan)
        canvas = self.mosaic.canvas(group.number)
        if canvas is not None:
            canvas.canvas, canvas.last, canvas.dose_scale = merged, newest.run.patch, dose_scale
        self.merges += 1

    def _figures(self, run: FlowRun) -> RunFigures:
        return replace(run.figures(), missed=self._missed.get(run.number, 0))
