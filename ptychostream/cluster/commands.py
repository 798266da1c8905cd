"""The command of each process of a cluster."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ptychostream.cluster.settings import ClusterSettings

PROCESSOR = "ptychostream.plugins.consumer.PtychoConsumer"


@dataclass(frozen=True)
class Command:
    """One process.

    Attributes
    ----------
    name
        Name in logs and on the screen.
    module, arguments
        Run as `python -m <module> <arguments>`.
    environment
        Variables in addition to those of the parent.
    """

    name: str
    module: str
    arguments: tuple[str, ...]
    environment: dict[str, str] = field(default_factory=dict)


def mirror_command(settings: ClusterSettings) -> Command:
    """pvaPy's mirror server, in front of the detector's channel."""
    source = settings.source
    channels = f"({settings.mirror_channel},{source.channel},pva,{source.queue_size})"
    return Command("mirror", "pvapy.cli.mirrorServer", ("--channel-map", channels))


def consumer_command(settings: ClusterSettings, number: int) -> Command:
    """One consumer in pvaPy's streaming framework."""
    consumers = settings.consumers
    arguments: dict[str, Any] = {
        "--consumer-id": number,
        "--input-channel": settings.channel,
        "--output-channel": settings.output,
        "--processor-class": PROCESSOR,
        "--processor-args": json.dumps(settings.consumer_values(number), sort_keys=True),
        "--receiver-queue-size": consumers.queue_size,
        "--server-queue-size": consumers.queue_size,
        "--distributor-group": consumers.group,
        "--distributor-trigger": "uniqueId",
        "--distributor-updates": consumers.updates,
        # a new monitor's first update repeats one that another consumer has had
        "--skip-initial-updates": 1,
        "--log-level": "WARNING",
    }
    words = tuple(str(word) for pair in arguments.items() for word in pair)
    devices = consumers.cuda_devices
    environment = {}
    if devices:
        environment["CUDA_VISIBLE_DEVICES"] = devices[(number - consumers.first) % len(devices)]
    return Command(f"consumer {number}", "pvapy.cli.hpcConsumer", (*words, "--disable-curses"), environment)


def collector_command(path: Path) -> Command:
    """The IOC that adds the consumers' canvases up."""
    return Command("collector", "ptychostream", ("ioc", "--cluster", str(path)))
