"""What `bench stream --overload` says: whether latency stays within what the queue allows, and no more is dropped
than the engine cannot do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

TOLERANCE = 0.05
"""Of the excess share, within which the drop share is to lie."""


class Sample(NamedTuple):
    """The IOC's counts at a POSIX time, s."""

    time: float
    received: int
    stitched: int
    queue_full: int


def overload_figures(
    samples: Sequence[Sample], most_waiting: int, p99_ms: float, sent_hz: float, engine_fps: float
) -> dict[str, Any]:
    """The figures of an overload.

    Parameters
    ----------
    samples
        While frames were sent. What counts lies between the first that knows of a full queue and the last: before, the
        queue fills; after, it empties.
    most_waiting
        Frames that may wait in the queue, and in one call of the engine.
    p99_ms
        99th percentile of the latency of the whole stream.
    sent_hz, engine_fps
        Frames sent a second, and what the engine does of them alone.

    Returns
    -------
    dict
        `rate_hz` stitched; `queue_ms`, the queue and one call at that rate; `latency_bound_ms`, the longest that so
        many frames took to be stitched, which is the same where the rate is steady; `p99_ms`; `drop_share`;
        `excess_share`, what the engine alone would leave over; `within`, whether both targets are met. Where the
        queue never was full only that: `full` False.
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
    """The longest time in which so many frames were stitched, over all the moments that were sampled."""
    times = np.array([sample.time for sample in samples])
    stitched = np.array([sample.stitched for sample in samples], np.float64)
    starts = stitched + frames <= stitched[-1]
    took = np.interp(stitched[starts] + frames, stitched, times) - times[starts]
    return max(frames / rate_hz, float(took.max(initial=0.0)))
