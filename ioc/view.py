"""What the readbacks are read from, and the declaration of a readback."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import KW_ONLY, dataclass, field, fields, replace
from functools import cached_property
from typing import Any, TypeAlias

from ptychostream.positions.sample_counts import SampleCounts
from ptychostream.config import Shown
from ptychostream.ioc.collector.collector import Collector
from ptychostream.ioc.collector.collector_slot import ClusterLive
from ptychostream.ioc.collector.collector_sums import ClusterFigures
from ptychostream.ioc.handlers import Parts
from ptychostream.ioc.model.model_slot import Live
from ptychostream.ioc.records.records import Value
from ptychostream.ioc.scan_control import ScanControl
from ptychostream.plugins.flow.figures import figures
from ptychostream.plugins.flow.snapshot import RunFigures, Snapshot
from ptychostream.plugins.refining.refined import RefineState
from ptychostream.plugins.stage_times import Latencies
from ptychostream.positions.clock_offset import OffsetEstimate
from ptychostream.positions.position_stream import StreamPositions
from ptychostream.quality.consistency import Consistency
from ptychostream.quality.quality import Quality

LARGEST = 2**31 - 1
"""The largest value of an EPICS integer of 32 bits."""
MANY = 10**12
"""A number of frames or samples that no run reaches; records of such numbers have 64 bits."""


@dataclass(frozen=True)
class View:
    """The IOC at one moment.

    Attributes
    ----------
    parts, scans
        The parts as they are now.
    snapshot, latencies, consistency
        Figures of the pipeline, of the running scan, and of the latest patch.
    ready, status
        Whether the next frame would be served at once, and what the plugin waits for or refused.
    now
        s since the POSIX epoch.
    """

    parts: Parts
    scans: ScanControl
    snapshot: Snapshot
    latencies: Latencies
    consistency: Consistency
    ready: bool
    status: str
    now: float

    @property
    def live(self) -> Live | ClusterLive | None:
        """The model that runs."""
        return self.parts.slot.live

    @property
    def quality(self) -> Quality | None:
        """The latest comparison with the reference."""
        latest = self.parts.comparison.latest
        return latest.quality if latest else None

    @property
    def samples(self) -> StreamPositions:
        """The stream of positions by time, whether or not it is the source."""
        return self.parts.positions.by_time.source

    @property
    def counts(self) -> SampleCounts:
        """Counts of samples of the stream in use."""
        counts: SampleCounts = self.parts.positions.feed.source.counts
        return counts

    @cached_property
    def clock(self) -> OffsetEstimate | None:
        """The estimate of the clock offset."""
        return self.samples.estimate()

    @cached_property
    def chosen(self) -> RunFigures | None:
        """The finished run that the images show; None: the live one."""
        return self.parts.shown.chosen(self.snapshot)

    @cached_property
    def refine(self) -> RefineState:
        """What the refinement tells."""
        return self.parts.refinement.state

    @property
    def collector(self) -> Collector:
        """The collector, where consumers stitch."""
        assert self.parts.collector is not None
        return self.parts.collector

    @property
    def cluster(self) -> ClusterFigures:
        """Figures of the consumers."""
        return self.collector.cluster


@dataclass(frozen=True, eq=False)
class Readback(Shown):
    """A record that shows something.

    Attributes
    ----------
    of
        Type of the value: bool, int, float or str.
    read
        Gives the value. NaN stands for a number that is not known: the record then has the severity INVALID.
    saved
        Kept over a restart by autosave.
    """

    of: type = int
    read: Callable[[View], Any] = field(default=lambda _: 0)
    _: KW_ONLY
    saved: bool = False

    def value(self, view: View) -> Value:
        """The value for the record."""
        value = self.read(view)
        if self.of is float:
            return float(value) if math.isfinite(value) else math.nan
        return int(value) if self.of is int or self.of is bool else str(value)


Groups: TypeAlias = dict[str, tuple[Readback, ...]]
"""Readbacks by the group of records that they are loaded and listed with."""


def grouped(*tables: Mapping[str, tuple[Readback, ...]]) -> list[Readback]:
    """The readbacks of all tables, each with its group."""
    return [replace(one, group=group) for table in tables for group, ones in table.items() for one in ones]


def of_figures(kind: type[Snapshot]) -> list[Readback]:
    """Readbacks of the figures that a snapshot declares with a record."""
    return [
        Readback(
            **{one.name: getattr(figure, one.name) for one in fields(Shown)},
            of=of,
            read=lambda view, name=name: getattr(view.snapshot, name),  # type: ignore[misc]
        )
        for name, (of, figure) in figures(kind).items()
        if figure.record
    ]
