"""Small updates for raw recordings."""

from __future__ import annotations

from ptychostream.rawpva.encoding import array, encode, scalar, structure
from ptychostream.rawpva.raw_values import RawUpdate

SMALL = structure("s_t", n=scalar("int32"), x=array("float64"))


def small(number: int, time_ns: int | None = None) -> RawUpdate:
    value = encode(SMALL, {"n": number, "x": [0.5] * number})
    return RawUpdate(number * 1000 if time_ns is None else time_ns, SMALL, 0b11, 0, value)
