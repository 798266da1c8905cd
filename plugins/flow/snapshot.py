"""What the pipeline tells: every figure at one moment, and the stitched image."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Annotated

import numpy as np
from numpy.typing import NDArray

from ptychostream.errors import DropCause
from ptychostream.frames.decimation import LARGEST_FACTOR
from ptychostream.imaging.phase_image import PhaseImage
from ptychostream.imaging.sigma import PhaseSigma, phase_sigma
from ptychostream.model.contract import ModelContract, Preprocessing
from ptychostream.plugins.flow.figures import Figure, counted, largest, most, slowest

_Frames = partial(Figure, egu="frames", kind="int64in", low=0, high=10**9)
_Rate = partial(Figure, egu="frame/s", prec=1, low=0, high=10_000, fields={"MDEL": 0.05, "ADEL": 1}, over_consumers=sum)


@dataclass(frozen=True)
class LatestPatch:
    """The last inference: `phase` [h, w] rad of frame `frame_id`, at (x_m, y_m).

    Attributes
    ----------
    counts, contract, spec
        The raw frame, the model and the preprocessing it was inferred from and by; None where they are in another
        process.
    """

    phase: NDArray[np.float32]
    scan: str
    frame_id: int
    x_m: float
    y_m: float
    counts: NDArray[np.integer] | None = None
    contract: ModelContract | None = None
    spec: Preprocessing | None = None


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
    late
        Frames that came after its end.
    told
        How often its end has been told, this time included: more than once if frames came after that.
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
    late: int = 0
    told: int = 0


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
    calibration
        Factor and floor (rad) of the error of the phase, of the models that added to it; None where a model has none,
        or they differ.
    """

    image: PhaseImage
    scan: str
    frames: int
    last_frame_id: int
    model: str
    dose_scale: float
    run: int = 0
    makers: tuple[Maker, ...] = ()
    calibration: tuple[float, float] | None = None

    @property
    def sigma(self) -> PhaseSigma | None:
        """The error of the image, computed anew at each call; None: its spread is not accumulated."""
        return phase_sigma(self.image.spread, self.calibration) if self.image.spread is not None else None


@dataclass(frozen=True, kw_only=True)
class Figures:
    """What a pipeline tells at one moment, of itself and, in a report, of a consumer to its collector.

    Attributes
    ----------
    received, stitched, pending, dropped
        Frames since the start: the conservation law's terms; `law_holds` says whether they add up.
    disordered
        Frames that came out of order.
    equal_times
        Frames with the time stamp of the frame before, although their ids differ.
    waiting_position, queue_used, queue_size, in_flight
        Where the pending frames are, and how many may wait for the engine.
    queue_memory, queue_memory_used
        Memory for frames that wait, MiB, and what those take that wait for a position or for the engine.
    received_hz, stitched_hz
        Frames per second, over the last two seconds.
    latency_ms
        50th, 95th and 99th percentile of this scan, from the frame's own time to stitched; NaN before any.
    execution_ms
        Preprocessing, inference and stitching of the last batch; NaN before any.
    batches
        Batches inferred.
    mean_counts
        Counts of a frame of the last batch after preprocessing, summed over the frame; NaN before any.
    dose_scale
        Factor by which the model is told that its counts were scaled.
    bad_pixels, mark_pixels
        Pixels of a raw frame that are no measurement, and those of them that their constant value shows.
    saturation_proposed
        Count that many pixels share, so that it is probably the saturation; 0: none.
    message
        The last thing that went wrong; empty after an engine came in or the counters were reset.
    """

    received: Annotated[int, _Frames("FramesReceived_RBV", "Frames that reached the plugin", group="accounting")] = 0
    stitched: Annotated[int, _Frames("FramesStitched_RBV", "Frames stitched into the canvas", group="accounting")] = 0
    pending: Annotated[
        int,
        _Frames("FramesPending_RBV", "Frames on their way to the canvas", group="accounting", fields={"ADEL": 10}),
    ] = 0
    dropped: Annotated[Mapping[DropCause, int], Figure()] = field(default_factory=dict)
    law_holds: Annotated[bool, Figure()] = True
    disordered: Annotated[
        int,
        _Frames("DisorderedArrays_RBV", "Frames that came out of order", group="plugin", over_consumers=counted),
    ] = 0
    equal_times: Annotated[int, Figure(
        "EqualTimes_RBV", "Frames with the time of the frame before", group="accounting", egu="frames",
        kind="int64in", low=0, high=10**9, over_consumers=counted, fields={"HIGH": 1, "HSV": "MINOR"},
    )] = 0  # fmt: skip
    waiting_position: Annotated[int, Figure(
        "FramesWaiting_RBV", "Frames that wait for their position", group="positions", egu="frames", low=0,
        high=2**31 - 1, over_consumers=sum,
    )] = 0  # fmt: skip
    queue_used: Annotated[int, Figure(over_consumers=sum)] = 0
    queue_size: Annotated[int, Figure(
        "QueueSize_RBV", "Frames that may wait in the plugin", group="plugin", egu="frames", low=1, high=1_000_000,
        over_consumers=sum,
    )] = 1  # fmt: skip
    queue_memory: Annotated[float, Figure(
        "QueueMemory_RBV", "Memory for frames that wait", group="plugin", egu="MiB", prec=0, low=0, high=1e8,
        over_consumers=sum,
    )] = 0.0  # fmt: skip
    queue_memory_used: Annotated[float, Figure(
        "QueueMemoryUsed_RBV", "Memory of the frames that wait", group="plugin", egu="MiB", prec=1, low=0, high=1e8,
        fields={"MDEL": 0.1, "ADEL": 10}, over_consumers=sum,
    )] = 0.0  # fmt: skip
    in_flight: Annotated[int, Figure(over_consumers=sum)] = 0
    received_hz: Annotated[
        float, _Rate("ArrayRate_RBV", "Frames received per second", group="plugin", wire="receivedRate")
    ] = 0.0
    stitched_hz: Annotated[
        float, _Rate("OutputRate_RBV", "Frames stitched per second", group="plugin", wire="stitchedRate")
    ] = 0.0
    latency_ms: Annotated[tuple[float, float, float], Figure(over_consumers=slowest)] = (math.nan,) * 3
    execution_ms: Annotated[float, Figure(
        "ExecutionTime_RBV", "Inference time of the latest batch", group="timing", egu="ms", low=0, high=1000,
        fields={"MDEL": 0.01, "ADEL": 0.1}, over_consumers=largest,
    )] = math.nan  # fmt: skip
    batches: Annotated[int, Figure()] = 0
    mean_counts: Annotated[float, Figure(
        "MeanCounts_RBV", "Mean counts of a frame, recent frames", group="quality", egu="counts", prec=0, low=0,
        high=1e9, fields={"MDEL": 1, "ADEL": 100},
    )] = math.nan  # fmt: skip
    dose_scale: Annotated[float, Figure(
        "DoseScale_RBV", "Dose scale in use", group="quality", prec=4, low=1e-4, high=1e5,
        fields={"MDEL": 0.0001, "ADEL": 0.01},
    )] = 1.0  # fmt: skip
    bad_pixels: Annotated[int, Figure(
        "BadPixels_RBV", "Pixels that are no measurement", group="plugin", egu="pixels", low=0, high=10**9,
        over_consumers=most,
    )] = 0  # fmt: skip
    mark_pixels: Annotated[int, Figure(
        "MarkPixels_RBV", "Of these, found by their constant value", group="plugin", egu="pixels", low=0, high=10**9,
        over_consumers=most,
    )] = 0  # fmt: skip
    saturation_proposed: Annotated[int, Figure(
        "SaturationProposed_RBV", "Count that many pixels share; 0: none", group="plugin", egu="counts", low=0,
        high=2**53, fields={"HIGH": 1, "HSV": "MINOR"}, over_consumers=most,
    )] = 0  # fmt: skip
    message: Annotated[str, Figure()] = ""


@dataclass(frozen=True, kw_only=True)
class Snapshot(Figures):
    """Every figure of a pipeline at one moment.

    Attributes
    ----------
    missed
        Frames lost before they came here: gaps in uniqueId.
    scan, scan_active, scan_stitched
        The current scan, whether it goes on, and the frames on its canvas.
    runs
        The current run first, then the finished ones that are kept, newest first.
    late_taken
        Frames taken for the canvas of a finished scan.
    kept_bytes
        Memory of the finished canvases.
    engine, model
        The engine's name and its contract's; empty before there is one.
    patch
        The last inference.
    queue_full, when_full
        Whether the queue was full within the last second, and which frame gives way then.
    decimation_factor
        Of how many patterns one is inferred now.
    busy_s
        How long the batch in flight has been; 0 while there is none.
    """

    missed: Annotated[int, Figure(
        "FramesMissed_RBV", "Frame ids that never arrived", group="accounting", egu="frames", kind="int64in", low=0,
        high=10**9, fields={"HIGH": 1, "HSV": "MINOR"},
    )]  # fmt: skip
    scan: Annotated[str, Figure("ScanID_RBV", "Scan that is being stitched", group="scan", length=39)]
    scan_active: bool
    scan_stitched: int
    runs: tuple[RunFigures, ...]
    late_taken: Annotated[int, _Frames("FramesLateTaken_RBV", "Frames taken for a finished scan", group="canvases")]
    keep: int
    kept_bytes: int
    engine: str
    model: str
    patch: LatestPatch | None
    queue_full: bool = False
    when_full: str = "drop_newest"
    decimation_factor: Annotated[int, Figure(
        "DecimationFactor_RBV", "One pattern in so many is inferred now", group="decimation", egu="frames", low=1,
        high=LARGEST_FACTOR, fields={"HIGH": 2, "HSV": "MINOR"},
    )] = 1  # fmt: skip
    busy_s: float = 0.0
