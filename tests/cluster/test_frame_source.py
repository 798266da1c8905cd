"""The pipeline and the collector give an IOC the same interface, with no inheritance between them."""

from __future__ import annotations

import inspect
import time
from dataclasses import replace

import pytest
from test_cluster_parts import report

from ptychostream.errors import ConfigError
from ptychostream.ioc.collector.collector import Collector
from ptychostream.ioc.config.settings import ClusterInput
from ptychostream.plugins.consumer.consumer_report import EngineReport, Report
from ptychostream.plugins.flow.scan_boundary import BoundarySettings
from ptychostream.plugins.flow.snapshot import RunFigures
from ptychostream.plugins.frame_source import FrameSource
from ptychostream.plugins.pipeline import Pipeline, PipelineSettings
from ptychostream.positions.positions import AttributePositions

METHODS = [name for name, member in vars(FrameSource).items() if inspect.isfunction(member) and name[0] != "_"]


class Told:
    """A collector without connections, and what it has told."""

    def __init__(self) -> None:
        self.changes = 0
        settings = ClusterInput(consumers=(1, 2))
        self.collector = Collector(
            settings, PipelineSettings(), BoundarySettings(), "t:", lambda _: None, self._changed
        )
        self.finished: list[RunFigures] = []
        self.collector.on_finished = lambda figures, _: self.finished.append(figures)
        for number in (1, 2):
            self.collector._connect(number, True)

    def _changed(self) -> None:
        self.changes += 1

    def report(self, *reports: Report) -> None:
        """These reports come and are added up."""
        for one in reports:
            self.collector._take(one)
        self.collector._look(time.monotonic())


@pytest.fixture
def told() -> Told:
    return Told()


@pytest.mark.parametrize("kind", [Pipeline, Collector])
def test_both_have_every_method_with_the_same_parameters(kind: type) -> None:
    assert len(METHODS) > 12
    for name in METHODS:
        assert inspect.signature(getattr(kind, name)) == inspect.signature(getattr(FrameSource, name)), name


def test_neither_is_the_other() -> None:
    assert Collector.__mro__ == (Collector, object)
    assert Pipeline.__mro__ == (Pipeline, object)


def test_what_the_consumers_own_is_refused_and_the_remedy_is_told(told: Told) -> None:
    with pytest.raises(ConfigError, match="restart the consumers"):
        told.collector.set_positions(AttributePositions("x", "y"))
    with pytest.raises(ConfigError, match="batch of the consumers is not changed"):
        told.collector.configure(batch=3)
    assert told.collector.configure(batch=PipelineSettings().batch) == PipelineSettings()
    told.collector.keep_canvases(7)
    assert told.collector.snapshot().keep == 7
    assert told.collector.tick() is None


def test_one_dose_scale_is_chosen_for_all_consumers(told: Told) -> None:
    engine = EngineReport(name="None", model="m", pixel_m=1e-8, mean_counts=1000.0)
    reports = [
        replace(report(number, [number, number + 2]), engine=engine, mean_counts=100.0, stitched_hz=1.0)
        for number in (1, 2)
    ]
    told.report(*reports)
    assert told.collector.orders.dose_scale == 1.0
    told.collector.scan_dose.automatic = True
    changes = told.changes
    told.report(*(replace(one, sequence=2) for one in reports))
    assert told.collector.orders.dose_scale == pytest.approx(10.0)
    assert told.collector.snapshot().dose_scale == pytest.approx(10.0)
    assert told.changes > changes


def test_a_snapshot_of_a_cluster_is_the_sum_and_a_run_that_ended_is_told_once(told: Told) -> None:
    told.report(report(1, [1, 3, 5]), report(2, [2, 6]))
    snapshot = told.collector.snapshot()
    assert (snapshot.received, snapshot.stitched, snapshot.scan_stitched, snapshot.missed) == (5, 5, 5, 1)
    (run,) = snapshot.runs
    assert (run.received, run.stitched, run.missed, run.active) == (5, 5, 1, True)
    stitched = told.collector.stitched()
    assert stitched is None  # no consumer has said which model made its canvas
    told.report(report(1, [11], scan="next", run=2, sequence=2, earlier=3, began=200.0))
    told.report()
    assert [figures.scan for figures in told.finished] == ["s"]
