"""A processor of pvapy's HPC consumer: `ptychostream.plugins.consumer.PtychoConsumer`."""

from ptychostream.plugins.consumer.consumer import PtychoConsumer

__all__ = ["PtychoConsumer"]
