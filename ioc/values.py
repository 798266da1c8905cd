"""What the readbacks show: pure functions from the parts' state to values by record name."""

from __future__ import annotations

import math

from ptychostream.ioc.comparison import Comparison
from ptychostream.ioc.images import ImageServer
from ptychostream.ioc.model_slot import ModelSlot
from ptychostream.ioc.position_desk import PositionDesk
from ptychostream.ioc.records import Value
from ptychostream.ioc.settings import ENGINES, POSITION_SOURCES
from ptychostream.ioc.stream import FrameLook
from ptychostream.plugins.snapshot import Snapshot
from ptychostream.positions import AxisConfig

_INT32 = 1 << 31


def pipeline_values(snapshot: Snapshot, scan_frames: int, counter_offset: int) -> dict[str, Value]:
    """Statistics, accounting, timing, dose and scan.

    Parameters
    ----------
    snapshot
        The pipeline's figures.
    scan_frames
        Frames expected in a scan, 0 when unknown.
    counter_offset
        What the array counter was set to, less the frames received then.
    """
    p50, p95, p99 = snapshot.latency_ms
    dropped = sum(snapshot.dropped.values())
    error = snapshot.received - snapshot.stitched - snapshot.pending - dropped
    progress = min(100.0, 100.0 * snapshot.scan_stitched / scan_frames) if scan_frames else 0.0
    return {
        "FramesReceived_RBV": snapshot.received,
        "FramesStitched_RBV": snapshot.stitched,
        "FramesPending_RBV": snapshot.pending,
        "FramesMissed_RBV": snapshot.missed,
        **{f"Dropped{cause.value}_RBV": count for cause, count in snapshot.dropped.items()},
        "DroppedArrays_RBV": dropped,
        "DisorderedArrays_RBV": snapshot.disordered,
        "Accounting_RBV": int(not snapshot.law_holds),
        "AccountingError_RBV": error,
        "ArrayCounter_RBV": (snapshot.received + counter_offset) % _INT32,
        "ArrayRate_RBV": snapshot.received_hz,
        "OutputRate_RBV": snapshot.stitched_hz,
        "QueueSize_RBV": snapshot.queue_size,
        "QueueFree_RBV": max(0, snapshot.queue_size - snapshot.queue_used),
        "QueueUse_RBV": 100.0 * snapshot.queue_used / snapshot.queue_size,
        "LatencyP50_RBV": number(p50),
        "LatencyP95_RBV": number(p95),
        "LatencyP99_RBV": number(p99),
        "ExecutionTime_RBV": snapshot.execution_ms,
        "MeanCounts_RBV": number(snapshot.mean_counts),
        "DoseScale_RBV": snapshot.dose_scale,
        "ScanID_RBV": snapshot.scan,
        "ScanActive_RBV": int(snapshot.scan_active),
        "ScanProgress_RBV": progress,
        "ScanFrames_RBV": scan_frames,
    }


def look_values(look: FrameLook) -> dict[str, Value]:
    """The latest frame."""
    height, width = look.shape
    return {
        "UniqueId_RBV": look.frame_id,
        "ArraySizeX_RBV": width,
        "ArraySizeY_RBV": height,
        "DataType_RBV": look.dtype,
    }


def slot_values(slot: ModelSlot, now: float) -> dict[str, Value]:
    """The model slot; `now` in seconds since the POSIX epoch."""
    live = slot.live
    return {
        "ModelState_RBV": int(slot.state),
        "ModelMessage_RBV": slot.message,
        "ModelVersion_RBV": live.contract.name if live else "",
        "ModelSHA_RBV": live.sha256 if live else "",
        "ModelFile_RBV": live.path if live else "",
        "PixelSize_RBV": 1e9 * live.contract.object_pixel_m if live else 0.0,
        "ModelAge_RBV": max(0.0, math.floor(now - live.since)) if live else 0.0,
        "PreviousModel_RBV": slot.previous.contract.name if slot.previous else "",
        "Engine_RBV": ENGINES.index(slot.wish.name),
        "EngineName_RBV": f"{live.engine} {live.engine_version}".strip() if live else "",
        "EngineReason_RBV": live.reason if live else "",
        "Precision_RBV": live.precision if live else "",
        "BatchSize_RBV": live.batch if live else slot.wish.batch,
    }


def image_values(images: ImageServer) -> dict[str, Value]:
    """The image server."""
    rows, columns = images.size
    return {
        "PhaseRate_RBV": images.rate_hz,
        "PhaseCounter_RBV": images.served % _INT32,
        "PhaseTime_RBV": 1e3 * images.last_s,
        "CanvasSizeX_RBV": columns,
        "CanvasSizeY_RBV": rows,
    }


def position_values(desk: PositionDesk) -> dict[str, Value]:
    """The position source."""
    return {
        "PositionSource_RBV": POSITION_SOURCES.index(desk.name),
        "XAttribute_RBV": desk.x_attribute,
        "YAttribute_RBV": desk.y_attribute,
        "RouteFile_RBV": desk.route_file,
        "PositionsCount_RBV": desk.count,
    }


def axes_values(axes: AxisConfig) -> dict[str, Value]:
    """How positions become canvas axes: shown, because a wrong sign looks plausible in the phase."""
    return {
        "PositionUnit_RBV": axes.unit,
        "SwapXY_RBV": int(axes.swap_xy),
        "SignX_RBV": axes.sign_x,
        "SignY_RBV": axes.sign_y,
    }


def comparison_values(comparison: Comparison) -> dict[str, Value]:
    """The latest comparison with the reference; zeros before any."""
    latest = comparison.latest
    return {
        "SSIMReference_RBV": comparison.reference,
        "SSIMTolerance_RBV": comparison.tolerance,
        "SSIM_RBV": latest.quality.ssim if latest else 0.0,
        "SSIM1px_RBV": latest.quality.ssim_1px if latest else 0.0,
        "Pearson_RBV": latest.quality.pearson if latest else 0.0,
        "SSIMScan_RBV": latest.scan if latest else "",
        "SSIMStatus_RBV": int(comparison.below),
    }


def automatic_dose(trained: float | None, measured: float, limits: tuple[float, float]) -> float | None:
    """Dose scale that brings the measured mean counts to those that the model was trained at; None when unknown."""
    if trained is None or not trained > 0 or not measured > 0:
        return None
    low, high = limits
    return min(max(trained / measured, low), high)


def number(value: float) -> float:
    """A figure that is not known yet shows as 0: NaN sets records undefined."""
    return value if math.isfinite(value) else 0.0
