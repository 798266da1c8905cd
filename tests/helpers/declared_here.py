"""A setting and a figure that are declared outside the package: as a program, an IOC or a consumer that has them.

declared_here.py ioc [options of `ptychostream ioc`]
declared_here.py consumer CHANNEL NUMBER GAIN
declared_here.py reference
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from typing import Annotated

import pvaccess as pva
from folders import ROOT
from pydantic import Field

from ptychostream.cli import ioc
from ptychostream.config import Setting, load_settings
from ptychostream.ioc.app import Ioc, run
from ptychostream.ioc.collector.collector import Collector
from ptychostream.ioc.config.settings import IocSettings
from ptychostream.ioc.declarations import load_others
from ptychostream.ioc.readbacks import readbacks
from ptychostream.ioc.records.database import records
from ptychostream.ioc.records.record_table import PREFIX, table
from ptychostream.plugins.consumer.consumer_encoding import encode_report, structure
from ptychostream.plugins.consumer.consumer_pipeline import ConsumerPipeline
from ptychostream.plugins.consumer.consumer_report import FINAL, STATUS, Report
from ptychostream.plugins.consumer.consumer_settings import ConsumerSettings
from ptychostream.plugins.consumer.consumer_worker import STATE, Worker
from ptychostream.plugins.engines.settings import EngineSettings
from ptychostream.plugins.flow.figures import Figure
from ptychostream.plugins.flow.snapshot import Figures, Snapshot
from ptychostream.plugins.pipeline import Pipeline
from ptychostream.plugins.pipeline_settings import PipelineSettings


class Sparking(PipelineSettings):
    """The pipeline's settings, and one more."""

    gain: Annotated[
        float,
        Setting(
            "SparkGain", "Sparks in ten frames, over 10", group="sparks", prec=2, flag="--spark-gain",
            help="a tenth of the sparks",
        ),
    ] = Field(2.0, ge=0, le=100)  # fmt: skip
    """A tenth of the sparks that are seen."""


class Settings(IocSettings):
    """The IOC's settings, and that one."""

    pipeline: Sparking = Sparking()


@dataclass(frozen=True, kw_only=True)
class Sparks(Figures):
    """One figure more."""

    sparks: Annotated[int, Figure("Sparks_RBV", "Sparks seen", egu="sparks", high=10**6, over_consumers=sum)] = 0


@dataclass(frozen=True, kw_only=True)
class SparkSnapshot(Sparks, Snapshot):
    """A snapshot with it."""


@dataclass(frozen=True, kw_only=True)
class SparkReport(Sparks, Report):
    """A consumer's report with it."""


class SparkPipeline(Pipeline):
    """Uses the setting, gives the figure."""

    snapshots = SparkSnapshot

    def snapshot(self) -> SparkSnapshot:
        assert isinstance(self._settings, Sparking)
        return SparkSnapshot(**vars(super().snapshot()), sparks=round(10 * self._settings.gain))


class SparkConsumerPipeline(SparkPipeline, ConsumerPipeline):
    """The same in a consumer."""


class SparkWorker(Worker):
    pipelines = SparkConsumerPipeline
    reports = SparkReport


class SparkCollector(Collector):
    snapshots = SparkSnapshot
    reports = SparkReport


class SparkIoc(Ioc):
    pipelines = SparkPipeline
    collectors = SparkCollector


def serve(words: list[str]) -> int:
    """The IOC."""
    parser = argparse.ArgumentParser()
    ioc.add_arguments(parser, Settings)
    arguments = parser.parse_args(words)
    given = ioc.overrides(arguments, Settings)
    return run(load_settings(Settings, arguments.config, given), given.keys(), SparkIoc)


def consume(channel: str, number: int, gain: float) -> int:
    """A consumer; ends with its standard input."""
    server = pva.PvaServer()
    for suffix in (STATE, STATUS, FINAL):
        server.addRecord(f"{channel}{suffix}", pva.PvObject(structure(SparkReport)))
    engine = EngineSettings(name="None", frame_shape=(16, 16))
    settings = ConsumerSettings(engine=engine).model_copy(update={"pipeline": Sparking(gain=gain)})
    worker = SparkWorker(
        settings, number, lambda suffix, report: server.update(channel + suffix, encode_report(report))
    )
    worker.start()
    sys.stdin.read()
    worker.stop()
    return 0


def refer() -> int:
    """The reference of the setting and the figure."""
    load_others(PREFIX, Settings, readbacks(SparkSnapshot))
    print(table(records()))
    sys.path.insert(0, str(ROOT / "docs/_ext"))
    import config_pages

    print(config_pages.page(config_pages.File("here", "Here", "", f"{__name__}:Settings")))
    return 0


if __name__ == "__main__":
    what, *rest = sys.argv[1:]
    if what == "ioc":
        sys.exit(serve(rest))
    sys.exit(consume(rest[0], int(rest[1]), float(rest[2])) if what == "consumer" else refer())
