"""What became of the samples of a position source."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class SampleCounts:
    """Counts of samples. A sample's key is its time or its index.

    By time, received = held + forgotten + duplicate + conflicting + late + bad + those of passes before. By index, bad
    samples are held: received = held + forgotten + duplicate + conflicting + late.

    Attributes
    ----------
    received
        All samples.
    duplicate
        A sample of that key and place was there already.
    conflicting
        A sample of that key was there already, with another place: one of the two is wrong.
    late
        Its key came at or behind the watermark, or was forgotten before it came.
    bad
        Its key or its position is not finite.
    forgotten
        The oldest samples, removed to make room.
    restarts
        How often the source's clock or index began anew, which a source does at every arm.
    restarts_in_scan
        How often it did so while frames of a scan still came, which had no place for that reason.
    """

    received: int = 0
    duplicate: int = 0
    conflicting: int = 0
    late: int = 0
    bad: int = 0
    forgotten: int = 0
    restarts: int = 0
    restarts_in_scan: int = 0
