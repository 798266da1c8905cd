"""A consumer's report, read from its PV Access channel through p4p; `consumer_encoding` writes it.

The fields are those of `Report`, found by their types; the canvas, the ids of its frames and the patch are read here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import is_dataclass
from functools import cache
from typing import Annotated, Any, TypeVar, get_args, get_origin, get_type_hints

import numpy as np
from numpy.typing import NDArray
from p4p import Value

from ptychostream.cluster.id_set import MAX_SPAN, IdSet
from ptychostream.errors import DropCause, FrameError, StreamError
from ptychostream.frames.codecs import decompress
from ptychostream.imaging.stitching import CanvasState
from ptychostream.plugins.consumer.consumer_report import MOST_PIXELS, Report
from ptychostream.plugins.flow.figures import figures
from ptychostream.plugins.flow.snapshot import LatestPatch

VERSION = 2
SUMS = ("value", "weight", "square", "weightSquared")
"""Names of a canvas's accumulators; the last two are empty where the spread is not accumulated."""
SCALARS = (int, float, str, bool)
DROPPED = Mapping[DropCause, int]
R = TypeVar("R", bound=Report)


def read_report(value: Value, kind: type[R] = Report) -> R | None:  # type: ignore[assignment]
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
        run = value["run"]
        state = {
            "ids": _unpack_ids(value["ids"]),
            "laid": _unpack_ids(value["laid"]),
            "canvas": _unpack_canvas(value["canvas"]),
            "patch": _unpack_patch(value["patch"], str(run["scan"])),
        }
        return _read(kind, value, run=_read(wire_fields(kind)["run"][1], run, **state))
    except (KeyError, AttributeError, TypeError, ValueError, FrameError) as error:
        raise _bad(str(error)) from error


def wire_fields(kind: type) -> dict[str, tuple[str, Any]]:
    """Name on the wire and type of a dataclass's fields that need no packing of their own, by the field's name."""
    hashable: Any = kind
    return _plain_fields(hashable)


@cache
def _plain_fields(kind: Any) -> dict[str, tuple[str, Any]]:
    declared, found = figures(kind), {}
    for name, hint in get_type_hints(kind, include_extras=True).items():
        of = get_args(hint)[0] if get_origin(hint) is Annotated else hint
        if of in SCALARS or of == DROPPED or is_dataclass(of) or get_origin(of) is tuple:
            first, *others = name.split("_")
            wire = declared[name][1].wire if name in declared else ""
            found[name] = wire or first + "".join(map(str.capitalize, others)), of
    return found


def _read(kind: type[Any], value: Value, **others: Any) -> Any:
    for name, (wire, of) in wire_fields(kind).items():
        if name in others:
            continue
        one = value[wire]
        if of == DROPPED:
            others[name] = {cause: int(one[cause.value]) for cause in DropCause}
        elif get_origin(of) is tuple:
            others[name] = tuple(part(item) for part, item in zip(get_args(of), one, strict=True))
        else:
            others[name] = of(one) if of in SCALARS else _read(of, one)
    return kind(**others)


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
    held = SUMS if len(canvas["square"]) else SUMS[:2]
    value, weight, *spread = (_unpack_integers(canvas[name], codec, (rows, columns)) for name in held)
    place = float(canvas["pixelSize"]), int(canvas["row0"]), int(canvas["column0"])
    return CanvasState(*place, value, weight, int(canvas["patches"]), *spread)


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
