"""Configuration of a cluster: one TOML file for every process of it, on every host."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

from pydantic import Field, model_validator

from ptychostream.config import Settings


class SourceSettings(Settings):
    """Where the frames come from."""

    channel: str
    """The detector's PVA channel."""
    mirror: bool = False
    """Put pvapy-mirror-server in front: only pvaPy's servers can distribute updates, an areaDetector IOC cannot."""
    mirror_channel: str = "{prefix}mirror"
    """Channel that the mirror serves; `{prefix}` is the prefix of the records."""
    queue_size: int = Field(2000, ge=1)
    """Updates that may wait in the mirror."""


class ConsumersSettings(Settings):
    """The consumers, and how the stream is distributed to them."""

    count: int = Field(2, ge=1, le=100)
    """Number of consumers."""
    first: int = Field(1, ge=0)
    """Number of the first consumer."""
    output: str = "{prefix}consumer:*"
    """Output channels of the consumers; `*` is the number."""
    updates: int = Field(1, ge=1)
    """Number of consecutive frames that one consumer gets before the next one."""
    group: str = "ptychostream"
    """The distributor's group: another group at the same detector gets every frame too."""
    queue_size: int = Field(2000, ge=1)
    """Frames that may wait for each consumer, on either side of the connection."""
    dead_after_s: float = Field(5.0, gt=0)
    """A consumer that has not reported for this time counts as dead, s."""
    settle_s: float = Field(1.0, ge=0)
    """Time after the last frame of a scan in which missing frames may still come, s."""
    cuda_devices: tuple[str, ...] = ()
    """GPUs, assigned to the consumers in turn; empty: each consumer sees all."""


class ClusterSettings(Settings):
    """All settings of `ptychostream cluster`."""

    prefix: str = "ptycho:NN1:"
    """First part of the name of every record."""
    source: SourceSettings
    consumers: ConsumersSettings = ConsumersSettings()
    consumer: dict[str, Any] = {}
    """Configuration of every consumer (`ptychostream.plugins.consumer.consumer_settings.ConsumerSettings`)."""
    only: dict[str, dict[str, Any]] = {}
    """Settings of single consumers that differ, by number."""
    ioc: dict[str, Any] = {}
    """Configuration of the collector, as that of `ptychostream ioc`."""
    key_file: Path | None = None
    """File with the cluster's key, on every host: reports and orders are signed with it. None: they are not."""
    log_dir: Path = Path("cluster-logs")
    """Folder of the processes' logs."""

    @model_validator(mode="after")
    def _consistent(self) -> ClusterSettings:
        numbers = {str(number) for number in self.numbers}
        if unknown := sorted(set(self.only) - numbers):
            raise ValueError(f"only.{unknown[0]} is no consumer: there are {', '.join(sorted(numbers))}")
        for key in ("prefix", "cluster"):
            if key in self.ioc:
                raise ValueError(f"ioc.{key} is made from the rest of this file: remove it")
        if "*" not in self.consumers.output:
            raise ValueError("consumers.output needs a * in the number's place")
        return self

    @property
    def numbers(self) -> tuple[int, ...]:
        """Of the consumers."""
        return tuple(range(self.consumers.first, self.consumers.first + self.consumers.count))

    @property
    def channel(self) -> str:
        """Channel that the consumers subscribe to."""
        return self.mirror_channel if self.source.mirror else self.source.channel

    @property
    def mirror_channel(self) -> str:
        """Channel that the mirror serves."""
        return self.source.mirror_channel.replace("{prefix}", self.prefix)

    @property
    def output(self) -> str:
        """Output channels, with a * in the number's place."""
        return self.consumers.output.replace("{prefix}", self.prefix)

    def consumer_values(self, number: int) -> dict[str, Any]:
        """Configuration of one consumer."""
        made = {"orders": f"{self.prefix}ClusterOrders_RBV"}
        if self.key_file is not None:
            made["key_file"] = str(self.key_file)
        if folder := self.ioc.get("model", {}).get("directory"):
            made["model_directory"] = folder
        return merged(made, merged(self.consumer, self.only.get(str(number), {})))

    def ioc_values(self) -> dict[str, Any]:
        """Configuration of the collector: its section, and what follows from the others."""
        made = {
            "prefix": self.prefix,
            "input": {"pv": self.channel},
            "cluster": {
                "consumers": list(self.numbers),
                "output": self.output,
                "dead_after_s": self.consumers.dead_after_s,
                "settle_s": self.consumers.settle_s,
                **({"key_file": str(self.key_file)} if self.key_file is not None else {}),
            },
        }
        names = ("input", "positions", "engine", "pipeline")  # so that the records show what the consumers do
        shown = {name: self.consumer[name] for name in names if name in self.consumer}
        return merged(merged(shown, made), self.ioc)


def merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """`below` updated by `above`, table by table."""
    values = deepcopy(dict(below))
    for key, value in above.items():
        if isinstance(value, Mapping) and isinstance(values.get(key), Mapping):
            values[key] = merged(values[key], value)
        else:
            values[key] = deepcopy(value)
    return values


def dotted(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested tables as dotted keys, as `ptychostream.config.load_settings` takes them."""
    pairs: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            pairs.update(dotted(value, f"{prefix}{key}."))
        else:
            pairs[f"{prefix}{key}"] = value
    return pairs
