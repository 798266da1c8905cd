"""A consumer's report as a PV Access structure of pvapy's server: plain fields that any client can read."""

from __future__ import annotations

from typing import Any, get_args, get_origin

import numpy as np
import pvaccess as pva
from numpy.typing import NDArray

from ptychostream.cluster.id_set import IdSet
from ptychostream.errors import DropCause
from ptychostream.frames.codecs import compress
from ptychostream.imaging.stitching import CanvasState
from ptychostream.plugins.consumer.consumer_report import Report
from ptychostream.plugins.consumer.consumer_wire import DROPPED, SCALARS, SUMS, VERSION, wire_fields
from ptychostream.plugins.flow.snapshot import LatestPatch

_TYPES = {int: pva.LONG, float: pva.DOUBLE, str: pva.STRING, bool: pva.BOOLEAN}
_IDS = {"first": pva.LONG, "outside": pva.LONG, "held": pva.BOOLEAN, "bits": [pva.UBYTE]}
_STATE: dict[str, Any] = {
    "ids": _IDS,
    "laid": _IDS,
    "canvas": {
        "held": pva.BOOLEAN, "pixelSize": pva.DOUBLE, "row0": pva.LONG, "column0": pva.LONG, "rows": pva.LONG,
        "columns": pva.LONG, "patches": pva.LONG, "codec": pva.STRING, "value": [pva.UBYTE], "weight": [pva.UBYTE],
        "square": [pva.UBYTE], "weightSquared": [pva.UBYTE],
    },
    "patch": {
        "held": pva.BOOLEAN, "rows": pva.LONG, "columns": pva.LONG, "frame": pva.LONG, "x": pva.DOUBLE,
        "y": pva.DOUBLE, "phase": [pva.FLOAT],
    },
}  # fmt: skip
"""What a state has besides; int64 accumulators are little-endian bytes under `codec`."""
_NO_BYTES = np.empty(0, np.uint8)


def structure(kind: type[Report] = Report) -> dict[str, Any]:
    """The structure of the channels, as pvapy takes it."""
    return {"version": pva.INT, **_structure(kind), **_STATE}


def encode_report(report: Report, codec: str = "") -> pva.PvObject:
    """As a PVA structure; the canvas under one of `ptychostream.frames.codecs`."""
    run = report.run
    state = {
        "ids": _pack_ids(run.ids),
        "laid": _pack_ids(run.laid),
        "canvas": _pack_canvas(run.canvas, codec),
        "patch": _pack_patch(run.patch),
    }
    return pva.PvObject(structure(type(report)), {"version": VERSION, **_pack(report), **state})


def _structure(kind: type) -> dict[str, Any]:
    return {wire: _wire_type(of) for wire, of in wire_fields(kind).values()}


def _wire_type(of: Any) -> Any:
    if of == DROPPED:
        return {cause.value: pva.LONG for cause in DropCause}
    if get_origin(of) is tuple:
        return [_TYPES[get_args(of)[0]]]
    return _TYPES[of] if of in SCALARS else _structure(of)


def _pack(value: Any) -> dict[str, Any]:
    packed: dict[str, Any] = {}
    for name, (wire, of) in wire_fields(type(value)).items():
        one = getattr(value, name)
        if of == DROPPED:
            packed[wire] = {cause.value: int(one.get(cause, 0)) for cause in DropCause}
        elif get_origin(of) is tuple:
            packed[wire] = [get_args(of)[0](part) for part in one]
        else:
            packed[wire] = of(one) if of in SCALARS else _pack(one)
    return packed


def _pack_ids(ids: IdSet | None) -> dict[str, Any]:
    if ids is None:
        return {"first": 0, "outside": 0, "held": False, "bits": _NO_BYTES}
    return {"first": ids.first, "outside": ids.outside, "held": True, "bits": ids.bits}


def _pack_canvas(state: CanvasState | None, codec: str) -> dict[str, Any]:
    if state is None:
        return {
            "held": False, "pixelSize": 0.0, "row0": 0, "column0": 0, "rows": 0, "columns": 0, "patches": 0,
            "codec": "", **{name: _NO_BYTES for name in SUMS},
        }  # fmt: skip
    rows, columns = state.value.shape
    return {
        "held": True, "pixelSize": state.pixel_m, "row0": state.row0, "column0": state.column0, "rows": rows,
        "columns": columns, "patches": state.patches, "codec": codec, **{name: _NO_BYTES for name in SUMS},
        **{name: _pack_integers(array, codec) for name, array in zip(SUMS, state.sums, strict=False)},
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
