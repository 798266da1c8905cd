"""Readbacks of the stream: the plugin's state, the accounting, times, the images."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from ptychostream import __version__
from ptychostream.errors import DropCause
from ptychostream.ioc.images.served_area import ServedArea
from ptychostream.ioc.view import MANY, Groups, Readback, View
from ptychostream.plugins.flow.snapshot import Snapshot
from ptychostream.plugins.stage_times import Stage

DROPPED = {
    DropCause.CODEC: "codec unknown, data truncated",
    DropCause.TYPE: "pixel type not an integer",
    DropCause.SHAPE: "shape not the model's",
    DropCause.DUPLICATE: "seen before",
    DropCause.NO_POSITION: "no position ever came",
    DropCause.LATE: "came after its scan ended",
    DropCause.QUEUE_FULL: "the queue was full",
    DropCause.NO_MODEL: "no model was live",
    DropCause.ENGINE: "the engine failed",
    DropCause.DECIMATED: "left out on purpose",
    DropCause.CONTRADICTION: "says what the model denies",
    DropCause.UNSELECTED: "another threshold or kind",
    DropCause.NOT_MEASURED: "dark, or no pattern",
}
"""Why frames are dropped, in words."""
STAGES = {
    Stage.ARRIVAL: "detector to here",
    Stage.POSITION: "wait for the position",
    Stage.QUEUE: "wait for the engine",
    Stage.PREPROCESS: "preprocessing a batch",
    Stage.INFERENCE: "inferring a batch",
    Stage.STITCH: "stitching a batch",
    Stage.SERVE: "canvas to served image",
}
"""What a frame waits for in each stage."""


def accounting_error(snapshot: Snapshot) -> int:
    """Frames by which received differs from stitched + pending + dropped."""
    return snapshot.received - snapshot.stitched - snapshot.pending - sum(snapshot.dropped.values())


def queue_use(snapshot: Snapshot) -> float:
    """Percent of the queue in use; 100 for a second after it was full."""
    return 100.0 if snapshot.queue_full else 100.0 * snapshot.queue_used / snapshot.queue_size


def _since(told: str, since: float) -> str:
    return datetime.fromtimestamp(since).isoformat(" ", "milliseconds") if told else ""


def _dropped(cause: DropCause, why: str) -> Readback:
    return Readback(
        f"Dropped{cause.value}_RBV",
        f"Dropped: {why}",
        int,
        lambda v: v.snapshot.dropped.get(cause, 0),
        kind="int64in",
        egu="frames",
        high=10**9,
        fields={"HIGH": 1, "HSV": "MINOR"},
    )


def _stage(stage: Stage, what: str, percentile: int) -> Readback:
    name, about = (("Time_RBV", "Median"), ("TimeP99_RBV", "99 %"))[percentile]
    return Readback(
        f"{stage.value}{name}",
        f"{about}: {what}",
        float,
        lambda v: v.latencies.stages_ms[stage][percentile],
        egu="ms",
        high=1000,
        fields={"MDEL": 0.001, "ADEL": 0.1},
    )


def _served(view: View) -> ServedArea:
    return view.parts.images.area


def edge(
    name: str, about: str, of: Callable[[ServedArea], float], area: Callable[[View], ServedArea] = _served
) -> Readback:
    """A place or a length of a served image, µm; by default of Phase and Weight."""
    return Readback(
        name,
        about,
        float,
        lambda v: of(area(v)),
        egu="um",
        low=-1e5,
        high=1e5,
        fields={"MDEL": 0.001, "ADEL": 0.1},
    )


# fmt: off
STREAM: Groups = {
    "accounting": (
        Readback("Accounting_RBV", "received = stitched + pending + dropped", bool,
                 lambda v: not v.snapshot.law_holds, states=("Holds", "Violated"), fields={"OSV": "MAJOR"}),
        Readback("AccountingError_RBV", "Frames by which the accounting is off", int,
                 lambda v: accounting_error(v.snapshot), kind="int64in", egu="frames",
                 fields={"HIGH": 1, "HSV": "MAJOR", "LOW": -1, "LSV": "MAJOR"}),
        Readback("Contradicts_RBV", "Frames contradict the model", bool,
                 lambda v: bool(v.parts.stream.contradiction[0]), states=("No", "Contradiction"),
                 fields={"OSV": "MAJOR"}),
        Readback("Contradiction_RBV", "What the frames say against the model", str,
                 lambda v: v.parts.stream.contradiction[0], length=1024),
        Readback("ContradictionTime_RBV", "Since when frames contradict", str,
                 lambda v: _since(*v.parts.stream.contradiction), length=39),
        Readback("HeldImages_RBV", "Old images of the detector, not taken", int, lambda v: v.parts.stream.held_images,
                 kind="int64in", egu="images", high=10**9),
    ),
    "images": (
        Readback("PhaseCounter_RBV", "Stitched phase images served", int, lambda v: v.parts.images.served,
                 egu="images", high=MANY, fields={"ADEL": 10}),
        Readback("ImagesPort_RBV", "TCP port of the images and Model:Load", int, lambda v: v.parts.images.port,
                 high=65535),
        Readback("ImageSizeX_RBV", "Width of Phase and Weight as served", int, lambda v: v.parts.images.area.shape[1],
                 egu="pixels", high=65536),
        Readback("ImageSizeY_RBV", "Height of Phase and Weight as served", int, lambda v: v.parts.images.area.shape[0],
                 egu="pixels", high=65536),
        edge("ImageLeft_RBV", "x of the image's left edge", lambda area: area.image_um[0]),
        edge("ImageRight_RBV", "x of the image's right edge", lambda area: area.image_um[1]),
        edge("ImageTop_RBV", "y of the image's first row", lambda area: area.image_um[2]),
        edge("ImageBottom_RBV", "y of the image's last row", lambda area: area.image_um[3]),
        Readback("SigmaMedian_RBV", "Median error of the stitched phase", float, lambda v: v.parts.images.sigma.median,
                 egu="rad", prec=4, high=10, fields={"MDEL": 0.0001, "ADEL": 0.01}),
        Readback("SigmaStatus_RBV", "Whether the error is within its limit", int,
                 lambda v: v.parts.images.sigma.status(v.parts.settings.sigma_limit),
                 states=("Within", "Beyond", "Unknown"), fields={"ONSV": "MINOR"}),
        Readback("SigmaCalibrated_RBV", "Error, or spread of patches alone", bool,
                 lambda v: v.parts.images.sigma.calibrated, states=("Spread only", "Calibrated")),
        Readback("PhaseTime_RBV", "Time to make and serve the latest image", float,
                 lambda v: 1e3 * v.parts.images.last_s, egu="ms", prec=1, high=1000, fields={"MDEL": 0.1, "ADEL": 5}),
    ),
    "plugin": (
        Readback("Version_RBV", "Version of ptychostream", str, lambda _: __version__, length=39),
        Readback("EnableCallbacks_RBV", "Subscribed to the detector", bool, lambda v: v.parts.stream.enabled,
                 states=("Disable", "Enable"), fields={"ZSV": "MINOR"}),
        Readback("Connected_RBV", "Detector channel is connected", bool, lambda v: v.parts.stream.connected,
                 states=("Disconnected", "Connected"), fields={"ZSV": "MAJOR"}),
        Readback("Ready_RBV", "The next frame would be served at once", bool, lambda v: v.ready,
                 states=("Not ready", "Ready"), fields={"ZSV": "MINOR"}),
        Readback("StatusMessage_RBV", "What the plugin waits for, or refused", str, lambda v: v.status),
        Readback("ArrayCounter_RBV", "Frames seen since the counter was set", int,
                 lambda v: v.snapshot.received + v.parts.counter_offset, egu="frames", high=MANY),
        Readback("DroppedArrays_RBV", "Frames dropped, all causes", int, lambda v: sum(v.snapshot.dropped.values()),
                 kind="int64in", egu="frames", high=10**9, fields={"HIGH": 1, "HSV": "MINOR"}),
        Readback("QueueFree_RBV", "Free places in the queue", int,
                 lambda v: max(0, v.snapshot.queue_size - v.snapshot.queue_used), egu="frames", high=1000000,
                 fields={"MDEL": 1, "ADEL": 10}),
        Readback("QueueUse_RBV", "Part of the queue in use", float, lambda v: queue_use(v.snapshot), egu="%", prec=1,
                 high=100, fields={"HIGH": 75, "HSV": "MINOR", "HIHI": 100, "HHSV": "MAJOR", "MDEL": 0.5, "ADEL": 5}),
        Readback("UniqueId_RBV", "uniqueId of the latest frame, as sent", int,
                 lambda v: v.parts.stream.latest_frame.frame_id, kind="int64in"),
        Readback("ArraySizeX_RBV", "Width of the latest frame", int, lambda v: v.parts.stream.latest_frame.shape[1],
                 egu="pixels", high=65536),
        Readback("ArraySizeY_RBV", "Height of the latest frame", int, lambda v: v.parts.stream.latest_frame.shape[0],
                 egu="pixels", high=65536),
        Readback("DataType_RBV", "Pixel type of the latest frame", str, lambda v: v.parts.stream.latest_frame.dtype,
                 length=39),
    ),
    "scan": (
        edge("CanvasLeft_RBV", "x of the canvas's left edge", lambda area: area.canvas_um[0]),
        edge("CanvasTop_RBV", "y of the canvas's first row", lambda area: area.canvas_um[2]),
        edge("CanvasWidth_RBV", "Width of the canvas", lambda area: area.canvas_um[1] - area.canvas_um[0]),
        edge("CanvasHeight_RBV", "Height of the canvas", lambda area: area.canvas_um[3] - area.canvas_um[2]),
        Readback("CanvasSizeX_RBV", "Width of the stitched phase", int, lambda v: v.parts.images.area.canvas.shape[1],
                 egu="pixels", high=65536),
        Readback("CanvasSizeY_RBV", "Height of the stitched phase", int, lambda v: v.parts.images.area.canvas.shape[0],
                 egu="pixels", high=65536),
    ),
    "timing": (
        Readback("LatencyP50_RBV", "Median time from frame to canvas", float, lambda v: v.latencies.stitched_ms[0],
                 egu="ms", prec=1, high=1000, fields={"MDEL": 0.1, "ADEL": 1}),
        Readback("LatencyP95_RBV", "95 % of frames reach the canvas within", float,
                 lambda v: v.latencies.stitched_ms[1], egu="ms", prec=1, high=1000, fields={"MDEL": 0.1, "ADEL": 1}),
        Readback("LatencyP99_RBV", "99 % of frames reach the canvas within", float,
                 lambda v: v.latencies.stitched_ms[2], egu="ms", prec=1, high=1000,
                 fields={"HIGH": 1000, "HSV": "MINOR", "MDEL": 0.1, "ADEL": 1}),
        Readback("LatencyServedP50_RBV", "Median time from frame to served image", float,
                 lambda v: v.latencies.served_ms[0], egu="ms", prec=1, high=1000, fields={"MDEL": 0.1, "ADEL": 1}),
        Readback("LatencyServedP95_RBV", "95 % of frames are served within", float,
                 lambda v: v.latencies.served_ms[1], egu="ms", prec=1, high=1000, fields={"MDEL": 0.1, "ADEL": 1}),
        Readback("LatencyServedP99_RBV", "99 % of frames are served within", float,
                 lambda v: v.latencies.served_ms[2], egu="ms", prec=1, high=1000, fields={"MDEL": 0.1, "ADEL": 1}),
        Readback("ClockErrors_RBV", "Frames whose time stamp cannot be right", int,
                 lambda v: v.latencies.clock_errors, kind="int64in", egu="frames", high=10**9,
                 fields={"HIGH": 1, "HSV": "MINOR"}),
    ),
}
# fmt: on
STREAM |= {
    "dropped": tuple(_dropped(cause, why) for cause, why in DROPPED.items()),
    "stages": tuple(_stage(stage, what, part) for stage, what in STAGES.items() for part in (0, 1)),
}
