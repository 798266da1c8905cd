"""A consumer's report as a PV Access structure of pvapy's server: plain fields that any client can read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pvaccess as pva
from numpy.typing import NDArray

from ptychostream.cluster.id_set import IdSet
from ptychostream.errors import DropCause
from ptychostream.frames.codecs import compress
from ptychostream.imaging.stitching import CanvasState
from ptychostream.plugins.consumer.consumer_report import Report
from ptychostream.plugins.consumer.consumer_wire import VERSION
from ptychostream.plugins.flow.snapshot import LatestPatch

_LONG, _DOUBLE, _STRING, _BOOLEAN = pva.LONG, pva.DOUBLE, pva.STRING, pva.BOOLEAN

_IDS = {"first": _LONG, "outside": _LONG, "held": _BOOLEAN, "bits": [pva.UBYTE]}

STRUCTURE: dict[str, Any] = {
    "version": pva.INT,
    "consumer": pva.INT,
    "instance": _STRING,
    "sequence": _LONG,
    "time": _DOUBLE,
    "session": _STRING,
    "resets": _LONG,
    "models": _LONG,
    "recalls": _LONG,
    "drained": _LONG,
    "sawEnd": _STRING,
    "received": _LONG,
    "stitched": _LONG,
    "pending": _LONG,
    "dropped": {cause.value: _LONG for cause in DropCause},
    "lawHolds": _BOOLEAN,
    "disordered": _LONG,
    "queueUsed": _LONG,
    "queueSize": _LONG,
    "waitingPosition": _LONG,
    "inFlight": _LONG,
    "receivedRate": _DOUBLE,
    "stitchedRate": _DOUBLE,
    "latencyMs": [_DOUBLE],
    "executionMs": _DOUBLE,
    "batches": _LONG,
    "meanCounts": _DOUBLE,
    "doseScale": _DOUBLE,
    "message": _STRING,
    "modelFailure": _STRING,
    "engine": {
        "name": _STRING, "version": _STRING, "precision": _STRING, "device": _STRING, "batch": pva.INT,
        "model": _STRING, "sha256": _STRING, "path": _STRING, "pixelSize": _DOUBLE, "meanCounts": _DOUBLE,
    },
    "frame": {"id": _LONG, "height": pva.INT, "width": pva.INT, "type": _STRING},
    "run": {
        "number": _LONG, "scan": _STRING, "active": _BOOLEAN, "received": _LONG, "stitched": _LONG,
        "dropped": {cause.value: _LONG for cause in DropCause}, "began": _DOUBLE, "latest": _DOUBLE,
    },
    "ids": _IDS,
    "laid": _IDS,
    "canvas": {
        "held": _BOOLEAN, "pixelSize": _DOUBLE, "row0": _LONG, "column0": _LONG, "rows": _LONG, "columns": _LONG,
        "patches": _LONG, "codec": _STRING, "value": [pva.UBYTE], "weight": [pva.UBYTE],
    },
    "patch": {
        "held": _BOOLEAN, "rows": _LONG, "columns": _LONG, "frame": _LONG, "x": _DOUBLE, "y": _DOUBLE,
        "phase": [pva.FLOAT],
    },
}  # fmt: skip
"""The structure of the channels, in pvapy's notation. The canvas's int64 sums are bytes, little-endian."""

_NO_BYTES = np.empty(0, np.uint8)


def encode_report(report: Report, codec: str = "") -> pva.PvObject:
    """The structure; `codec`, one of `ptychostream.frames.codecs`, compresses the canvas."""
    engine, run = report.engine, report.run
    return pva.PvObject(
        STRUCTURE,
        {
            "version": VERSION,
            "consumer": report.consumer,
            "instance": report.instance,
            "sequence": report.sequence,
            "time": report.time,
            "session": report.session,
            "resets": report.resets,
            "models": report.models,
            "recalls": report.recalls,
            "drained": report.drained,
            "sawEnd": report.saw_end,
            "received": report.received,
            "stitched": report.stitched,
            "pending": report.pending,
            "dropped": _pack_drops(report.dropped),
            "lawHolds": report.law_holds,
            "disordered": report.disordered,
            "queueUsed": report.queue_used,
            "queueSize": report.queue_size,
            "waitingPosition": report.waiting_position,
            "inFlight": report.in_flight,
            "receivedRate": report.received_hz,
            "stitchedRate": report.stitched_hz,
            "latencyMs": [float(value) for value in report.latency_ms],
            "executionMs": report.execution_ms,
            "batches": report.batches,
            "meanCounts": report.mean_counts,
            "doseScale": report.dose_scale,
            "message": report.message,
            "modelFailure": report.model_failure,
            "engine": {
                "name": engine.name, "version": engine.version, "precision": engine.precision,
                "device": engine.device, "batch": engine.batch, "model": engine.model, "sha256": engine.sha256,
                "path": engine.path, "pixelSize": engine.pixel_m, "meanCounts": engine.mean_counts,
            },
            "frame": {
                "id": report.frame_id, "height": report.frame_shape[0], "width": report.frame_shape[1],
                "type": report.frame_type,
            },
            "run": {
                "number": run.number, "scan": run.scan, "active": run.active, "received": run.received,
                "stitched": run.stitched, "dropped": _pack_drops(run.dropped), "began": run.began,
                "latest": run.latest,
            },
            "ids": _pack_ids(run.ids),
            "laid": _pack_ids(run.laid),
            "canvas": _pack_canvas(run.canvas, codec),
            "patch": _pack_patch(run.patch),
        },
    )  # fmt: skip


def _pack_drops(dropped: Mapping[DropCause, int]) -> dict[str, int]:
    return {cause.value: int(dropped.get(cause, 0)) for cause in DropCause}


def _pack_ids(ids: IdSet | None) -> dict[str, Any]:
    if ids is None:
        return {"first": 0, "outside": 0, "held": False, "bits": _NO_BYTES}
    return {"first": ids.first, "outside": ids.outside, "held": True, "bits": ids.bits}


def _pack_canvas(state: CanvasState | None, codec: str) -> dict[str, Any]:
    if state is None:
        return {
            "held": False, "pixelSize": 0.0, "row0": 0, "column0": 0, "rows": 0, "columns": 0, "patches": 0,
            "codec": "", "value": _NO_BYTES, "weight": _NO_BYTES,
        }  # fmt: skip
    rows, columns = state.value.shape
    return {
        "held": True, "pixelSize": state.pixel_m, "row0": state.row0, "column0": state.column0, "rows": rows,
        "columns": columns, "patches": state.patches, "codec": codec,
        "value": _pack_integers(state.value, codec), "weight": _pack_integers(state.weight, codec),
    }  # fmt: skip


def _pack_integers(array: NDArray[np.int64], codec: str) -> NDArray[np.uint8]:
    if array.size == 0:
        return _NO_BYTES
    return np.frombuffer(compress(array.astype("<i8", copy=False), codec), np.uint8)


def _pack_patch(patch: LatestPatch | None) -> dict[str, Any]:
    if patch is None:
        empty = np.empty(0, np.float32)
        return {"held": False, "rows": 0, "columns": 0, "frame": 0, "x": 0.0, "y": 0.0, "phase": empty}
    rows, columns = patch.phase.shape
    return {
        "held": True, "rows": rows, "columns": columns, "frame": patch.frame_id, "x": patch.x_m, "y": patch.y_m,
        "phase": np.ascontiguousarray(patch.phase, np.float32).ravel(),
    }  # fmt: skip
