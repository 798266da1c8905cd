"""What the pipeline tells: every figure at one moment, and the stitched image."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ptychostream.errors import DropCause
from ptychostream.imaging.phase_image import PhaseImage
from ptychostream.model.contract import ModelContract


@dataclass(frozen=True)
class LatestPatch:
    """The last inference: `phase` [h, w] rad of frame `frame_id`, at (x_m, y_m).

    Attributes
    ----------
    counts, contract
        The raw frame and the model it was inferred from and by; None where they are in another process.
    """

    phase: NDArray[np.float32]
    scan: str
    frame_id: int
    x_m: float
    y_m: float
    counts: NDArray[np.integer] | None = None
    contract: ModelContract | None = None


@dataclass(frozen=True)
class RunFigures:
    """The accounting of one run of a scan: received = stitched + pending + Σ dropped.

    Attributes
    ----------
    number
        Counts the runs; a scan that comes twice under one id is two.
    scan, active
        Scan id, and whether the run goes on.
    dropped
        By cause; causes without a frame are left out.
    missed
        Gaps in its frame ids: frames that were lost before they came here.
    began, ended
        On the monotonic clock, s; `ended` is None while it goes on.
    first_time, last_time
        Acquisition times of its frames, s since the POSIX epoch; None before any.
    """

    number: int
    scan: str
    active: bool
    received: int
    stitched: int
    pending: int
    dropped: Mapping[DropCause, int]
    missed: int
    began: float
    ended: float | None
    first_time: float | None
    last_time: float | None


@dataclass(frozen=True)
class Maker:
    """A model and engine that added to a canvas: the model's contract, the engine in words, the dose scales used."""

    contract: ModelContract
    engine: str
    dose_scales: tuple[float, float]
    frames: int


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
    run
        Number of the scan's run; 0 before any.
    makers
        Every model and engine that added to it, in order.
    """

    image: PhaseImage
    scan: str
    frames: int
    last_frame_id: int
    model: str
    dose_scale: float
    run: int = 0
    makers: tuple[Maker, ...] = ()


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
        The current scan, whether it goes on, and the frames on its canvas.
    runs
        The current run first, then the finished ones that are kept, newest first.
    late_taken
        Frames taken for the canvas of a finished scan.
    keep, kept_bytes
        Finished runs that are kept at most, and the memory of the finished canvases.
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
    queue_full, when_full
        Whether the queue was full within the last second, and which frame gives way then.
    decimation, decimation_factor
        Mode, and of how many patterns one is inferred now.
    busy_s
        How long the batch in flight has been; 0 while there is none.
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
    runs: tuple[RunFigures, ...]
    late_taken: int
    keep: int
    kept_bytes: int
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
    queue_full: bool = False
    when_full: str = "drop_newest"
    decimation: str = "Off"
    decimation_factor: int = 1
    busy_s: float = 0.0
