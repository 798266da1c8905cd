"""A consumer's report, read from its PV Access channel through p4p; `consumer_encoding` writes it."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from p4p import Value

from ptychostream.cluster.id_set import MAX_SPAN, IdSet
from ptychostream.errors import DropCause, FrameError, StreamError
from ptychostream.frames.codecs import decompress
from ptychostream.imaging.stitching import CanvasState
from ptychostream.plugins.consumer.consumer_report import MOST_PIXELS, EngineReport, Report, RunReport
from ptychostream.plugins.flow.snapshot import LatestPatch

VERSION = 1


def read_report(value: Value) -> Report | None:
    """The report that a channel holds; None before the consumer has written one.

    Raises
    ------
    StreamError
        The value cannot be read, or comes from another version of ptychostream.
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
        engine=EngineReport(
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


def _read_drops(value: Value) -> dict[DropCause, int]:
    return {cause: int(value[cause.value]) for cause in DropCause}


def _unpack_ids(ids: Value) -> IdSet | None:
    if not ids["held"]:
        return None
    bits = np.asarray(ids["bits"], np.uint8)
    if 8 * len(bits) > MAX_SPAN:
        raise ValueError(f"{len(bits)} bytes of frame ids")
    held = IdSet(int(ids["first"]), bits)
    held.outside = int(ids["outside"])
    return held


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


def _unpack_patch(patch: Value, scan: str) -> LatestPatch | None:
    if not patch["held"]:
        return None
    phase = np.asarray(patch["phase"], np.float32).reshape(int(patch["rows"]), int(patch["columns"]))
    return LatestPatch(phase, scan, int(patch["frame"]), float(patch["x"]), float(patch["y"]))


def _bad(what: str) -> StreamError:
    remedy = "name the output channels of ptychostream consumers of this version"
    return StreamError(f"no report of a consumer: {what}", where="consumer", remedy=remedy)
