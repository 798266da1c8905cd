"""What a consumer tells its collector."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated

from ptychostream.cluster.id_set import IdSet
from ptychostream.errors import DropCause
from ptychostream.frames.codecs import MAX_FRAME_BYTES
from ptychostream.imaging.stitching import CanvasState
from ptychostream.plugins.flow.figures import Figure
from ptychostream.plugins.flow.snapshot import Figures, LatestPatch

STATUS, FINAL = ":Status", ":Final"
"""What follows the output channel's name: reports without a canvas, more often; the canvas of the scan before."""
MOST_PIXELS = MAX_FRAME_BYTES // 8
"""Of a canvas that can be sent."""


@dataclass(frozen=True)
class EngineReport:
    """The engine that runs, and its model."""

    name: str = ""
    version: str = ""
    precision: str = ""
    device: str = ""
    batch: int = 0
    model: str = ""
    sha256: str = ""
    path: str = ""
    pixel_m: Annotated[float, Figure(wire="pixelSize")] = 0.0
    mean_counts: float = 0.0
    """Of the model's training frames; 0 when unknown."""
    sigma_factor: Annotated[float, Figure(wire="sigmaFactor")] = -1.0
    """Of the calibration of the model's error; below 0: it has none."""
    sigma_floor_rad: Annotated[float, Figure(wire="sigmaFloor")] = 0.0


@dataclass(frozen=True)
class RunReport:
    """One run of a scan, as one consumer had it.

    Attributes
    ----------
    number
        The consumer's own number of the run.
    scan, active
        Scan id, and whether its frames go on.
    received, stitched, dropped
        Frames of it, those on the canvas, and those that will never be.
    began, latest
        Acquisition times of the first and the latest frame, s since the POSIX epoch; 0 before any.
    ids
        Of every frame of the run received, but for those taken back; None in a status.
    laid
        Of those on the canvas; None in a status.
    canvas
        Exactly what was added up when the figures were taken; None in a status, or before a model.
    patch
        The last inference; None in a status.
    """

    number: int = 0
    scan: str = ""
    active: bool = False
    received: int = 0
    stitched: int = 0
    dropped: Mapping[DropCause, int] = field(default_factory=dict)
    began: float = 0.0
    latest: float = 0.0
    ids: IdSet | None = None
    laid: IdSet | None = None
    canvas: CanvasState | None = None
    patch: LatestPatch | None = None


@dataclass(frozen=True)
class FrameReport:
    """The latest frame: its id, its shape in pixels and its pixel type; zeros before any."""

    id: int = 0
    height: int = 0
    width: int = 0
    type: str = ""


@dataclass(frozen=True, kw_only=True)
class Report(Figures):
    """One consumer at one moment: its pipeline's figures, and what the collector needs besides.

    Attributes
    ----------
    consumer, instance
        Its number, and a text that differs after each of its starts.
    sequence
        Counts its reports.
    time
        s since the POSIX epoch.
    session, resets, models, recalls
        Of the orders that were carried out when the figures were taken.
    drained
        The session's end of a scan that was carried out last: nothing of that scan waits any more.
    saw_end
        The scan of which this consumer had the last frame; empty once it has had a frame of a later run.
    held_images
        Images that the detector's server held at the subscription, and that are of no scan that goes on.
    contradiction, contradicts_since
        What the frames say that the model denies, empty where nothing does, and since when, s since the POSIX epoch.
    model_failure
        Why the model that was ordered last does not run.
    engine, frame
        The engine that runs, and the latest frame.
    run
        The run that the report is about.
    signed
        Signature with the cluster's key; empty without one.
    """

    consumer: int
    instance: str
    sequence: int
    time: float
    session: str = ""
    resets: int = 0
    models: int = 0
    recalls: int = 0
    drained: int = 0
    saw_end: str = ""
    held_images: int = 0
    contradiction: str = ""
    contradicts_since: float = 0.0
    model_failure: str = ""
    engine: EngineReport = EngineReport()
    run: RunReport = RunReport()
    frame: FrameReport = FrameReport()
    signed: str = ""

    @property
    def all_dropped(self) -> int:
        return sum(self.dropped.values())
