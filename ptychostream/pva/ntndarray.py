"""Build NTNDArrays of images for p4p's server, with all fields that viewers read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from p4p import Type, Value
from p4p.nt import NTNDArray

from ptychostream.pva.reading import SCALAR_TYPES, Scalar

_FIELD_NAMES = ("byte", "short", "int", "long", "ubyte", "ushort", "uint", "ulong", "float", "double")
FIELD_OF = {dtype: f"{name}Value" for dtype, name in zip(SCALAR_TYPES.values(), _FIELD_NAMES, strict=True)}
"""The field of the union for each pixel type."""
INT32 = range(-(1 << 31), 1 << 31)
"""Attributes in this range are sent as int32, as areaDetector sends them."""

_, _, _FIELDS = NTNDArray.buildType().aspy()
_DISPLAY = [("limitLow", "d"), ("limitHigh", "d"), ("description", "s"), ("format", "s"), ("units", "s")]
_TYPE = Type([*_FIELDS, ("descriptor", "s"), ("display", ("S", "display_t", _DISPLAY))], id="epics:nt/NTNDArray:1.0")


def build(
    array: NDArray[Any],
    unique_id: int,
    time_s: float,
    attributes: Mapping[str, Scalar],
    *,
    descriptor: str,
    units: str,
) -> Value:
    """Build a complete uncompressed NTNDArray.

    `codec.parameters` stays empty, because PyDM takes a type code in it for the type of the pixels.

    Parameters
    ----------
    array
        [H, W] of any integer or float type.
    unique_id
        Image number. It wraps to the 32 bits of the field.
    time_s
        Both time stamps, seconds since the POSIX epoch.
    attributes
        NDAttributes by name. `ColorMode` is added.
    descriptor, units
        For displays.
    """
    stamp = time_stamp(time_s)
    return Value(
        _TYPE,
        {
            "value": (FIELD_OF[array.dtype], np.ascontiguousarray(array).ravel()),
            "compressedSize": array.nbytes,
            "uncompressedSize": array.nbytes,
            "uniqueId": to_int32(unique_id),
            "timeStamp": stamp,
            "dataTimeStamp": stamp,
            "dimension": dimensions(array.shape),
            "attribute": [
                {"name": name, "value": _typed(value)} for name, value in {"ColorMode": 0, **attributes}.items()
            ],
            "descriptor": descriptor,
            "display": {"description": descriptor, "units": units},
        },
    )


def to_int32(number: int) -> int:
    """`number` modulo 2³², as a signed integer of 32 bits."""
    return (number + (1 << 31)) % (1 << 32) - (1 << 31)


def dimensions(shape: tuple[int, ...]) -> list[dict[str, Any]]:
    """The field `dimension` for an array of `shape`, with the fastest axis first."""
    return [{"size": size, "offset": 0, "fullSize": size, "binning": 1, "reverse": False} for size in reversed(shape)]


def time_stamp(time_s: float) -> dict[str, int]:
    """A time_t structure for `time_s` seconds since the POSIX epoch."""
    seconds, nanoseconds = divmod(round(time_s * 1e9), 1_000_000_000)
    return {"secondsPastEpoch": seconds, "nanoseconds": nanoseconds, "userTag": 0}


def _typed(value: Scalar) -> tuple[str, Scalar]:
    """The value with p4p's type code for a variant union."""
    if isinstance(value, str):
        return "s", value
    if isinstance(value, int | np.integer):
        return ("i" if value in INT32 else "l"), int(value)
    return "d", float(value)
