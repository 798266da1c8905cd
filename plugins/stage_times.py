"""Where a frame's time goes: from the detector to the canvas and to the clients, stage by stage.

Times within the process are differences of the monotonic clock. Only the first stage, from the detector's time stamp
to this process, compares two machines' clocks: where it comes out negative or absurd (a clock stepped, the wrong time
zone, a driver that leaves the stamp empty) the frame is counted in `clock_errors` and enters no figure that begins at
the detector. Batches are stored as they are and evaluated many at a time, so that a frame costs about a microsecond.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ptychostream.frames.frames import PlacedFrame
from ptychostream.plugins.latency import LatencyHistograms

MOST_ARRIVAL_S = 60.0
"""No stream holds a frame back for longer than this: beyond it the detector's clock is wrong."""
_FRAMES_AT_ONCE = 512
_UNSERVED = 1000


class Stage(Enum):
    """The stages of a frame, in order; each is the records `<value>Time_RBV` and `<value>TimeP99_RBV`."""

    ARRIVAL = "Arrival"
    """From the detector's time stamp to decoded in this process: read-out, network, queues, decompression."""
    POSITION = "Position"
    """Wait for its position."""
    QUEUE = "Queue"
    """Wait for its batch and for the engine."""
    PREPROCESS = "Preprocess"
    """Preprocessing of its batch."""
    INFERENCE = "Inference"
    """Inference of its batch."""
    STITCH = "Stitch"
    """Its batch laid on the canvas."""
    SERVE = "Serve"
    """From the canvas to a published image that shows it."""


STAGES = tuple(Stage)
_STITCHED, _SERVED = len(STAGES), len(STAGES) + 1
_INSIDE = slice(1, 6)
"""Rows from POSITION to STITCH."""


class BatchTimes(NamedTuple):
    """When a batch left one stage for the next, monotonic seconds."""

    taken: float
    prepared: float
    inferred: float
    stitched: float


@dataclass(frozen=True)
class Latencies:
    """Percentiles of the running scan, milliseconds; NaN where nothing was measured.

    Attributes
    ----------
    stitched_ms, served_ms
        50th, 95th and 99th percentile from the detector's time stamp to the canvas, and to the image that shows it.
    stages_ms
        Median and 99th percentile of every stage.
    clock_errors
        Frames whose time stamp cannot be right.
    """

    stitched_ms: tuple[float, float, float]
    served_ms: tuple[float, float, float]
    stages_ms: Mapping[Stage, tuple[float, float]]
    clock_errors: int


class _Batch(NamedTuple):
    """A batch as it was noted."""

    frames: list[tuple[float, float, float]]
    """Arrival, s; entered and queued, monotonic seconds."""
    times: BatchTimes


class _Unserved(NamedTuple):
    """Batches that no published image shows yet."""

    arrival_s: NDArray[np.float64]  # credible ones
    entered_s: NDArray[np.float64]  # of the same frames
    stitched: NDArray[np.float64]  # of every frame


class StageTimes:
    """Records the times of every batch and of every published image. Any thread."""

    def __init__(self) -> None:
        self.run = 0
        """Number of the scan's run that the figures are of."""
        self._lock = threading.Lock()
        self._histograms = LatencyHistograms(len(STAGES) + 2)
        self._noted: list[_Batch] = []
        self._frames_noted = 0
        self._unserved: deque[_Unserved] = deque(maxlen=_UNSERVED)
        self._clock_errors = 0

    def note(self, stitched: Sequence[PlacedFrame], times: BatchTimes) -> None:
        """A batch's stitched frames."""
        frames = [(f.received - f.time, f.entered, placed.queued) for placed in stitched for f in (placed.frame,)]
        with self._lock:
            self._noted.append(_Batch(frames, times))
            self._frames_noted += len(frames)
            if self._frames_noted >= _FRAMES_AT_ONCE:
                self._work_up()

    @contextmanager
    def serving(self) -> Iterator[_Publication]:
        """Use around making and publishing an image, which shows every frame stitched before.

        Its `published(now)` completes the times of those frames; without it they wait for the next image.
        """
        with self._lock:
            self._work_up()
            shown, self._unserved = self._unserved, deque(maxlen=_UNSERVED)
        publication = _Publication()
        try:
            yield publication
        finally:
            with self._lock:
                if publication.time is None:
                    self._unserved.extendleft(reversed(shown))
                else:
                    self._note_served(shown, publication.time)

    def begin(self, run: int) -> None:
        """Frames of `run` follow: a run newer than the one before begins its figures anew."""
        if run > self.run:
            self.run = run
            self.reset()

    def reset(self) -> None:
        """Begin anew. Frames that no image has shown yet are forgotten."""
        with self._lock:
            self._histograms.clear()
            self._noted, self._frames_noted = [], 0
            self._unserved.clear()

    def restart_counters(self) -> None:
        """Count clock errors from zero."""
        with self._lock:
            self._work_up()
            self._clock_errors = 0

    def stitched_ms(self) -> tuple[float, float, float]:
        """50th, 95th and 99th percentile from the detector's time stamp to the canvas; NaN before any."""
        with self._lock:
            self._work_up()
            p50, p95, p99 = (1e3 * self._histograms.percentiles(50, 95, 99, kinds=[_STITCHED])[0]).tolist()
        return p50, p95, p99

    def latencies(self) -> Latencies:
        """Every figure at one moment."""
        with self._lock:
            self._work_up()
            percentiles = 1e3 * self._histograms.percentiles(50, 95, 99)
            errors = self._clock_errors
        rows = percentiles.tolist()
        return Latencies(
            stitched_ms=tuple(rows[_STITCHED]),
            served_ms=tuple(rows[_SERVED]),
            stages_ms={stage: (rows[index][0], rows[index][2]) for index, stage in enumerate(STAGES)},
            clock_errors=errors,
        )

    def _work_up(self) -> None:
        """Evaluate the stored batches."""
        noted, self._noted, self._frames_noted = self._noted, [], 0
        frames = [len(batch.frames) for batch in noted]
        if not any(frames):
            return
        arrival, entered, queued = np.array([frame for batch in noted for frame in batch.frames], np.float64).T
        taken, prepared, inferred, stitched = np.repeat([batch.times for batch in noted], frames, axis=0).T
        inside = [queued - entered, taken - queued, prepared - taken, inferred - prepared, stitched - inferred]
        self._histograms.record(_INSIDE, inside)
        credible = (arrival >= 0) & (arrival <= MOST_ARRIVAL_S)
        right, began = arrival[credible], entered[credible]
        self._histograms.record([0, _STITCHED], [right, right + (stitched[credible] - began)])
        self._clock_errors += len(arrival) - len(right)
        self._unserved.append(_Unserved(right, began, stitched))

    def _note_served(self, shown: deque[_Unserved], now: float) -> None:
        for batches in shown:
            self._histograms.record([_SERVED - 2], [now - batches.stitched])
            self._histograms.record([_SERVED], [batches.arrival_s + (now - batches.entered_s)])


class _Publication:
    """One image on its way out."""

    def __init__(self) -> None:
        self.time: float | None = None

    def published(self, now: float) -> None:
        """The image is out; monotonic seconds."""
        self.time = now
