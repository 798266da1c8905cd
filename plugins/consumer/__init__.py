"""A processor of pvapy's HPC consumer: `ptychostream.plugins.consumer.PtychoConsumer`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ptychostream.plugins.consumer import consumer


def PtychoConsumer(configDict: Mapping[str, Any] | None = None) -> consumer.PtychoConsumer:  # noqa: N802
    """Make the processor; see `ptychostream.plugins.consumer.consumer.PtychoConsumer`.

    A function of this module, because pvapy looks the name up in the module's dictionary; the class is imported only
    here, because the collector, whose process has no pvapy, imports other modules of this package.
    """
    from ptychostream.plugins.consumer.consumer import PtychoConsumer as Processor

    return Processor(configDict)
