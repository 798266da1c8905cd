"""A processor of pvapy's HPC consumer: `ptychostream.plugins.consumer.PtychoConsumer`.

The collector, whose process has no pvapy, reads reports with modules of this package: the class is imported on demand.
"""

from typing import Any


def __getattr__(name: str) -> Any:
    if name != "PtychoConsumer":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from ptychostream.plugins.consumer.consumer import PtychoConsumer

    return PtychoConsumer
