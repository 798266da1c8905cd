"""The figures of `bench stream --overload`.

They tell whether the latency stays below the limit of the queue, and whether only the excess frames are dropped.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

TOLERANCE = 0.05
"""Allowed relative difference between the drop share and the excess share."""


class Sample(NamedTuple):
    """The IOC's counts at a POSIX time in seconds."""

    time: float
    received: int
    stitched: int
    queue_full: int


def overload_figures(
    samples: Sequence[Sample], most_waiting: int, p99_ms: float, sent_hz: float, engine_fps: float
) -> dict[str, Any]:
    """Compute the figures of an overload.

    Parameters
    ----------
    samples
        Samples while frames were sent. Those from the first to the last sample with a full queue count. Before them the
        queue fills, and after them it empties.
    most_waiting
        Largest number of frames in the queue and in one call of the engine.
    p99_ms
        99th percentile of the latency over the stream.
    sent_hz, engine_fps
        Sent frames per second, and frames per second of the engine alone.

    Returns
    -------
    dict
        `rate_hz`: stitched frames per second. `queue_ms`: time for a full queue and one call at this rate.
        `latency_bound_ms`: the longest time in which that many frames were stitched; at a constant rate it equals
        `queue_ms`. `p99_ms`. `drop_share`. `excess_share`: the share that the engine alone could not infer. `within`:
        whether both targets are met. If the queue was never full, there is only `full`, which is False.
    """
    full = [sample for sample in samples if sample.queue_full > samples[0].queue_full]
    if len(full) < 2 or full[-1].received == full[0].received or full[-1].stitched == full[0].stitched:
        return {"full": False, "within": False}
    first, last = full[0], full[-1]
    rate_hz = (last.stitched - first.stitched) / (last.time - first.time)
    bound_ms = 1e3 * _longest_s(full, most_waiting, rate_hz)
    drop_share = (last.queue_full - first.queue_full) / (last.received - first.received)
    excess_share = max(0.0, 1.0 - engine_fps / sent_hz)
    return {
        "full": True,
        "seconds": last.time - first.time,
        "rate_hz": rate_hz,
        "queue_ms": 1e3 * most_waiting / rate_hz,
        "latency_bound_ms": bound_ms,
        "p99_ms": p99_ms,
        "drop_share": drop_share,
        "excess_share": excess_share,
        "within": p99_ms <= bound_ms and abs(drop_share - excess_share) <= TOLERANCE,
    }


def _longest_s(samples: Sequence[Sample], frames: int, rate_hz: float) -> float:
    """The longest time in which `frames` frames were stitched, over all samples."""
    times = np.array([sample.time for sample in samples])
    stitched = np.array([sample.stitched for sample in samples], np.float64)
    starts = stitched + frames <= stitched[-1]
    took = np.interp(stitched[starts] + frames, stitched, times) - times[starts]
    return max(frames / rate_hz, float(took.max(initial=0.0)))
