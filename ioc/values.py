"""What the readbacks show: pure functions from the parts' state to values by record name."""

from __future__ import annotations

import math

from ptychostream.ioc.agent_desk import AgentDesk
from ptychostream.ioc.model.canary_rollback import Rollback
from ptychostream.ioc.images.canvas_saver import CanvasSaver
from ptychostream.quality.consistency import Consistency
from ptychostream.ioc.collector.collector_slot import ClusterSlot
from ptychostream.ioc.images.comparison import Comparison
from ptychostream.ioc.images.images import ImageServer
from ptychostream.ioc.model.model_slot import ModelSlot
from ptychostream.ioc.scan.position_sources import PositionSources
from ptychostream.ioc.records.records import Value
from ptychostream.ioc.config.setpoints import CLOCK_MODES, DROP_POLICIES
from ptychostream.ioc.config.settings import ENGINES, POSITION_SOURCES
from ptychostream.ioc.images.shown_canvas import ShownCanvas
from ptychostream.ioc.scan.stream import LatestFrame
from ptychostream.plugins.flow.decimator import MODES as DECIMATION
from ptychostream.plugins.flow.scan_boundary import BOUNDARIES, BoundarySettings
from ptychostream.plugins.flow.snapshot import RunFigures, Snapshot
from ptychostream.plugins.stage_times import Latencies
from ptychostream.positions.positions import AxisConfig

_INT32 = 1 << 31
MANUAL, ESTIMATING, ESTIMATED = range(3)
"""States of ClockOffsetState_RBV."""


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
        "QueueUse_RBV": 100.0 if snapshot.queue_full else 100.0 * snapshot.queue_used / snapshot.queue_size,
        "DropPolicy_RBV": DROP_POLICIES.index(snapshot.when_full),
        "Decimation_RBV": DECIMATION.index(snapshot.decimation),
        "DecimationFactor_RBV": snapshot.decimation_factor,
        "ExecutionTime_RBV": snapshot.execution_ms,
        "MeanCounts_RBV": number(snapshot.mean_counts),
        "DoseScale_RBV": snapshot.dose_scale,
        "ScanID_RBV": snapshot.scan,
        "ScanActive_RBV": int(snapshot.scan_active),
        "ScanProgress_RBV": progress,
        "ScanFrames_RBV": scan_frames,
        "FramesWaiting_RBV": snapshot.waiting_position,
    }


def latency_values(latencies: Latencies) -> dict[str, Value]:
    """Where the time of the scan's frames goes, ms."""
    shown: dict[str, Value] = {"ClockErrors_RBV": latencies.clock_errors}
    for name, percentiles in (("Latency", latencies.stitched_ms), ("LatencyServed", latencies.served_ms)):
        for percent, value in zip((50, 95, 99), percentiles, strict=True):
            shown[f"{name}P{percent}_RBV"] = number(value)
    for stage, (median, p99) in latencies.stages_ms.items():
        shown[f"{stage.value}Time_RBV"], shown[f"{stage.value}TimeP99_RBV"] = number(median), number(p99)
    return shown


def latest_frame_values(frame: LatestFrame) -> dict[str, Value]:
    """The latest frame."""
    height, width = frame.shape
    return {
        "UniqueId_RBV": frame.frame_id,
        "ArraySizeX_RBV": width,
        "ArraySizeY_RBV": height,
        "DataType_RBV": frame.dtype,
    }


def slot_values(slot: ModelSlot | ClusterSlot, now: float) -> dict[str, Value]:
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


def canary_values(slot: ModelSlot | ClusterSlot, rollback: Rollback) -> dict[str, Value]:
    """The canary of the model that came last, and the way back."""
    difference = slot.canary.latest
    return {
        "CanaryLimit_RBV": slot.canary.limit,
        "CanaryDifference_RBV": number(difference.rms),
        "CanaryFrames_RBV": difference.frames,
        "PreviousSHA_RBV": slot.previous.sha256 if slot.previous else "",
        "RollbackTolerance_RBV": rollback.tolerance,
        "ModelRolledBack_RBV": int(rollback.alarm),
        "RollbackMessage_RBV": rollback.message,
    }


def agent_values(desk: AgentDesk) -> dict[str, Value]:
    """The agent's lease, and what operators have asked of it."""
    return {
        "Agent:Lease_RBV": desk.holder,
        "Agent:CommandStatus_RBV": int(desk.status),
        **{f"Agent:{name.capitalize()}Asked_RBV": number for name, number in desk.asked.items()},
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


def position_values(desk: PositionSources) -> dict[str, Value]:
    """The position source."""
    return {
        "PositionSource_RBV": POSITION_SOURCES.index(desk.name),
        "XAttribute_RBV": desk.x_attribute,
        "YAttribute_RBV": desk.y_attribute,
        "RouteFile_RBV": desk.route_file,
        "PositionsCount_RBV": desk.count,
    }


def stream_values(desk: PositionSources) -> dict[str, Value]:
    """The stream of positions, whether or not it is the source."""
    feed, source = desk.feed, desk.feed.source
    settings, counts, estimate = source.settings, source.counts, source.estimate()
    state = MANUAL
    if settings.clock_offset_mode == "Auto":
        state = ESTIMATING if source.offset_s is None else ESTIMATED
    return {
        "PositionPVAName_RBV": feed.channel,
        "PositionConnected_RBV": 0 if not feed.wanted else 2 if feed.connected else 1,
        "PositionTolerance_RBV": 1e3 * settings.tolerance_s,
        "ClockOffsetMode_RBV": CLOCK_MODES.index(settings.clock_offset_mode),
        "ClockOffset_RBV": source.offset_s or 0.0,
        "ClockOffsetState_RBV": state,
        "ClockOffsetEstimate_RBV": estimate.offset_s if estimate else 0.0,
        "ClockOffsetError_RBV": 1e3 * estimate.uncertainty_s if estimate else 0.0,
        "PositionSamples_RBV": counts.received % _INT32,
        "PositionSamplesHeld_RBV": source.held,
        "PositionSamplesTwice_RBV": counts.duplicate % _INT32,
        "PositionSamplesLate_RBV": counts.late % _INT32,
        "PositionSamplesBad_RBV": counts.bad % _INT32,
        "PositionSamplesForgotten_RBV": counts.forgotten % _INT32,
        "PositionRestarts_RBV": counts.restarts,
        "PositionUpdatesBad_RBV": feed.bad_updates,
    }


def gate_values(desk: PositionSources) -> dict[str, Value]:
    """Which frames are left out though their position is known."""
    gate, source = desk.current, desk.feed.source
    return {
        "SettleTime_RBV": gate.settings.settling_s,
        "MaxSpeed_RBV": 1e6 * source.settings.max_speed_m_s,
        "FieldWidth_RBV": 1e6 * gate.settings.field_width_m,
        "FieldHeight_RBV": 1e6 * gate.settings.field_height_m,
        "FieldX_RBV": 1e6 * gate.settings.field_x_m,
        "FieldY_RBV": 1e6 * gate.settings.field_y_m,
        "FramesSettling_RBV": gate.settling,
        "FramesMoving_RBV": source.moving,
        "FramesOutside_RBV": gate.outside,
        "PositionMessage_RBV": gate.message,
    }


def axes_values(axes: AxisConfig) -> dict[str, Value]:
    """How positions become canvas axes: shown, because a wrong sign looks plausible in the phase."""
    return {
        "PositionUnit_RBV": axes.unit,
        "SwapXY_RBV": int(axes.swap_xy),
        "SignX_RBV": axes.sign_x,
        "SignY_RBV": axes.sign_y,
    }


def boundary_values(settings: BoundarySettings) -> dict[str, Value]:
    """What tells scans apart, and what becomes of late frames."""
    return {
        "ScanBoundary_RBV": BOUNDARIES.index(settings.boundary),
        "ScanGap_RBV": settings.gap_s,
        "LateFrames_RBV": int(settings.late == "drop"),
        "LateTime_RBV": settings.late_s,
    }


def canvas_values(snapshot: Snapshot, shown: ShownCanvas, saver: CanvasSaver) -> dict[str, Value]:
    """The runs, the finished canvases, and their saving."""
    chosen = shown.chosen(snapshot)
    return {
        "ScanRun_RBV": snapshot.runs[0].number if snapshot.runs else 0,
        "FramesLateTaken_RBV": snapshot.late_taken,
        "KeepCanvases_RBV": snapshot.keep,
        "KeptCanvases_RBV": max(0, len(snapshot.runs) - 1),
        "KeptMemory_RBV": 1e-6 * snapshot.kept_bytes,
        "KeptScans_RBV": "\n".join(run_text(run) for run in snapshot.runs),
        "ShowScan_RBV": shown.wish if chosen is not None else 0,
        "ShownScanID_RBV": chosen.scan if chosen is not None else snapshot.scan,
        "AutoSaveCanvas_RBV": int(saver.automatic),
        "SaveDirectory_RBV": saver.directory,
        "LastSavedFile_RBV": saver.last_file,
        "SaveStatus_RBV": int(saver.state),
        "SaveMessage_RBV": saver.message,
        "CanvasesSaved_RBV": saver.saved,
        "CanvasesWaiting_RBV": saver.waiting,
        "CanvasesLost_RBV": saver.lost,
    }


def run_text(run: RunFigures) -> str:
    """A run's accounting in a line."""
    counts = {"received": run.received, "stitched": run.stitched, "pending": run.pending, "missed": run.missed}
    counts |= {f"dropped {cause.value}": count for cause, count in run.dropped.items()}
    told = ", ".join(f"{count} {name}" for name, count in counts.items() if count or name in ("received", "stitched"))
    return f"{run.number} {run.scan or '(unnamed)'}: {told}"


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


def consistency_values(latest: Consistency) -> dict[str, Value]:
    """The latest patch against its own pattern; NaN, which makes the records INVALID, where that is not known."""
    known = math.isfinite(latest.figure)
    return {
        "Consistency_RBV": latest.figure if known else math.nan,
        "RFactor_RBV": latest.r_factor if known else math.nan,
    }


def number(value: float) -> float:
    """A figure that is not known yet shows as 0: NaN sets records undefined."""
    return value if math.isfinite(value) else 0.0
