"""What the pipeline tells: every figure at one moment, and the stitched image."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ptychostream.frames import DropCause
from ptychostream.phase_image import PhaseImage


@dataclass(frozen=True)
class LatestPatch:
    """The last inference: `phase` [h, w] rad of frame `frame_id`, at (x_m, y_m)."""

    phase: NDArray[np.float32]
    scan: str
    frame_id: int
    x_m: float
    y_m: float


@dataclass(frozen=True)
class Stitched:
    """The canvas as an image, and what it is made of.

    Attributes
    ----------
    frames
        Patches on the canvas.
    last_frame_id
        Of the last batch; -1 before any.
    model
        The contract's name, of the last model that added to the canvas.
    """

    image: PhaseImage
    scan: str
    frames: int
    last_frame_id: int
    model: str
    dose_scale: float


@dataclass(frozen=True)
class Snapshot:
    """Every figure at one moment.

    Attributes
    ----------
    received, stitched, pending, dropped
        The conservation law's terms; `law_holds` says whether it does.
    missed, disordered
        Frames lost upstream (gaps in uniqueId), and frames that came out of order.
    waiting_position, queue_used, in_flight
        Where the pending frames are.
    scan, scan_active, scan_stitched
        The scan of the last frame, whether it goes on, and the frames on the canvas.
    received_hz, stitched_hz
        Rates over the last two seconds.
    latency_ms
        50th, 95th and 99th percentile of this scan, from the frame's own time to stitched; NaN before any.
    execution_ms
        Preprocessing, inference and stitching of the last batch.
    batches
        Batches inferred.
    engine, model
        The engine's name and its contract's; empty before there is one.
    mean_counts
        Counts of a frame of the last batch after preprocessing, summed over the frame; NaN before any.
    message
        The last thing that went wrong; empty after an engine came in or the counters were reset.
    """

    received: int
    stitched: int
    pending: int
    dropped: Mapping[DropCause, int]
    law_holds: bool
    missed: int
    disordered: int
    waiting_position: int
    queue_used: int
    queue_size: int
    in_flight: int
    scan: str
    scan_active: bool
    scan_stitched: int
    received_hz: float
    stitched_hz: float
    latency_ms: tuple[float, float, float]
    execution_ms: float
    batches: int
    engine: str
    model: str
    mean_counts: float
    dose_scale: float
    patch: LatestPatch | None
    message: str
