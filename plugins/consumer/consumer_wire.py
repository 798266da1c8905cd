"""A consumer's report on PV Access: a plain structure that any client can read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pvaccess as pva
from numpy.typing import NDArray
from p4p import Value

from ptychostream.cluster.id_set import MAX_SPAN, IdSet
from ptychostream.errors import DropCause, FrameError, StreamError
from ptychostream.frames.codecs import compress, decompress
from ptychostream.imaging.stitching import CanvasState
from ptychostream.plugins.consumer.consumer_report import MOST_PIXELS, EngineLook, Report, RunReport
from ptychostream.plugins.flow.snapshot import LatestPatch

VERSION = 1

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
"""The structure of the channels, as pvapy takes it. int64 accumulators are little-endian bytes under `codec`."""

_NO_BYTES = np.empty(0, np.uint8)


def encode_report(report: Report, codec: str = "") -> pva.PvObject:
    """As a PVA structure; the canvas under one of `ptychostream.frames.codecs`."""
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


def read_report(value: Value) -> Report | None:
    """What a channel holds; None before the consumer has written it.

    Raises
    ------
    StreamError
        It is no report, or one of another version of ptychostream.
    """
    try:
        version = int(value["version"])
        if version == 0:
            return None
        if version != VERSION:
            raise _bad(f"version {version}, this is {VERSION}")
        return _read(value)
    except (KeyError, AttributeError, TypeError, ValueError, FrameError) as error:
        raise _bad(str(error)) from error


def _read(value: Value) -> Report:
    p50, p95, p99 = (float(one) for one in value["latencyMs"])
    engine, frame = value["engine"], value["frame"]
    return Report(
        consumer=int(value["consumer"]),
        instance=str(value["instance"]),
        sequence=int(value["sequence"]),
        time=float(value["time"]),
        session=str(value["session"]),
        resets=int(value["resets"]),
        models=int(value["models"]),
        recalls=int(value["recalls"]),
        drained=int(value["drained"]),
        saw_end=str(value["sawEnd"]),
        received=int(value["received"]),
        stitched=int(value["stitched"]),
        pending=int(value["pending"]),
        dropped=_read_drops(value["dropped"]),
        law_holds=bool(value["lawHolds"]),
        disordered=int(value["disordered"]),
        queue_used=int(value["queueUsed"]),
        queue_size=int(value["queueSize"]),
        waiting_position=int(value["waitingPosition"]),
        in_flight=int(value["inFlight"]),
        received_hz=float(value["receivedRate"]),
        stitched_hz=float(value["stitchedRate"]),
        latency_ms=(p50, p95, p99),
        execution_ms=float(value["executionMs"]),
        batches=int(value["batches"]),
        mean_counts=float(value["meanCounts"]),
        dose_scale=float(value["doseScale"]),
        message=str(value["message"]),
        model_failure=str(value["modelFailure"]),
        engine=EngineLook(
            name=str(engine["name"]), version=str(engine["version"]), precision=str(engine["precision"]),
            device=str(engine["device"]), batch=int(engine["batch"]), model=str(engine["model"]),
            sha256=str(engine["sha256"]), path=str(engine["path"]), pixel_m=float(engine["pixelSize"]),
            mean_counts=float(engine["meanCounts"]),
        ),
        run=_read_run(value),
        frame_id=int(frame["id"]),
        frame_shape=(int(frame["height"]), int(frame["width"])),
        frame_type=str(frame["type"]),
    )  # fmt: skip


def _read_run(value: Value) -> RunReport:
    run = value["run"]
    scan = str(run["scan"])
    return RunReport(
        number=int(run["number"]),
        scan=scan,
        active=bool(run["active"]),
        received=int(run["received"]),
        stitched=int(run["stitched"]),
        dropped=_read_drops(run["dropped"]),
        began=float(run["began"]),
        latest=float(run["latest"]),
        ids=_unpack_ids(value["ids"]),
        laid=_unpack_ids(value["laid"]),
        canvas=_unpack_canvas(value["canvas"]),
        patch=_unpack_patch(value["patch"], scan),
    )


def _pack_drops(dropped: Mapping[DropCause, int]) -> dict[str, int]:
    return {cause.value: int(dropped.get(cause, 0)) for cause in DropCause}


def _read_drops(value: Value) -> dict[DropCause, int]:
    return {cause: int(value[cause.value]) for cause in DropCause}


def _pack_ids(ids: IdSet | None) -> dict[str, Any]:
    if ids is None:
        return {"first": 0, "outside": 0, "held": False, "bits": _NO_BYTES}
    return {"first": ids.first, "outside": ids.outside, "held": True, "bits": ids.bits}


def _unpack_ids(ids: Value) -> IdSet | None:
    if not ids["held"]:
        return None
    bits = np.asarray(ids["bits"], np.uint8)
    if 8 * len(bits) > MAX_SPAN:
        raise ValueError(f"{len(bits)} bytes of frame ids")
    held = IdSet(int(ids["first"]), bits)
    held.outside = int(ids["outside"])
    return held


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


def _unpack_canvas(canvas: Value) -> CanvasState | None:
    if not canvas["held"]:
        return None
    rows, columns, codec = int(canvas["rows"]), int(canvas["columns"]), str(canvas["codec"])
    if rows < 0 or columns < 0 or rows * columns > MOST_PIXELS:
        raise ValueError(f"a canvas of {rows} × {columns} pixels")
    return CanvasState(
        pixel_m=float(canvas["pixelSize"]),
        row0=int(canvas["row0"]),
        column0=int(canvas["column0"]),
        value=_unpack_integers(canvas["value"], codec, (rows, columns)),
        weight=_unpack_integers(canvas["weight"], codec, (rows, columns)),
        patches=int(canvas["patches"]),
    )


def _unpack_integers(data: Any, codec: str, shape: tuple[int, int]) -> NDArray[np.int64]:
    if shape[0] * shape[1] == 0:
        return np.zeros(shape, np.int64)
    payload = np.ascontiguousarray(data, np.uint8)
    unpacked: NDArray[np.int64] = decompress(payload, codec, shape, "<i8").astype(np.int64, copy=False)
    return unpacked


def _pack_patch(patch: LatestPatch | None) -> dict[str, Any]:
    if patch is None:
        empty = np.empty(0, np.float32)
        return {"held": False, "rows": 0, "columns": 0, "frame": 0, "x": 0.0, "y": 0.0, "phase": empty}
    rows, columns = patch.phase.shape
    return {
        "held": True, "rows": rows, "columns": columns, "frame": patch.frame_id, "x": patch.x_m, "y": patch.y_m,
        "phase": np.ascontiguousarray(patch.phase, np.float32).ravel(),
    }  # fmt: skip


def _unpack_patch(patch: Value, scan: str) -> LatestPatch | None:
    if not patch["held"]:
        return None
    phase = np.asarray(patch["phase"], np.float32).reshape(int(patch["rows"]), int(patch["columns"]))
    return LatestPatch(phase, scan, int(patch["frame"]), float(patch["x"]), float(patch["y"]))


def _bad(what: str) -> StreamError:
    remedy = "name the output channels of ptychostream consumers of this version"
    return StreamError(f"no report of a consumer: {what}", where="consumer", remedy=remedy)
