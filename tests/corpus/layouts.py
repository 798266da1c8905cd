"""The NTNDArray structures of the emitters, field by field in their order, and a frame's values in them.

adcore
    normativeTypesCPP's builder, as NDPluginPva, pvaDriver behind an NDPluginPva and pvapy's NtNdArray use it
    (normativeTypesCPP src/ntndarray.cpp and src/ntndarrayAttribute.cpp; ADCore NDPluginPva.cpp).
pvxs
    pvxs::nt::NTNDArray, as NDPluginPvxs uses it (pvxs src/nt.cpp).
pvxs_scalar
    The same of early pvxs, where floatValue and doubleValue are no arrays.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptychostream.frames.codecs import compress
from ptychostream.rawpva.encoding import ANYTHING, array, encode, scalar, structure, structures, union
from ptychostream.rawpva.fields import Field
from ptychostream.sim.replay.prepared_frames import CODEC_T, DIMENSION_T, TIME_T

ALARM_T = structure("alarm_t", severity=scalar("int32"), status=scalar("int32"), message=scalar("str"))
DISPLAY_T = structure(
    "display_t",
    limitLow=scalar("float64"),
    limitHigh=scalar("float64"),
    description=scalar("str"),
    format=scalar("str"),
    units=scalar("str"),
)
ATTRIBUTE = "epics:nt/NTAttribute:1.0"
NTNDARRAY = "epics:nt/NTNDArray:1.0"

KINDS = {
    "bool": "boolean", "int8": "byte", "int16": "short", "int32": "int", "int64": "long", "uint8": "ubyte",
    "uint16": "ushort", "uint32": "uint", "uint64": "ulong", "float32": "float", "float64": "double",
}  # fmt: skip
SCALAR_TYPE = {name: code for code, name in enumerate(KINDS)}
ND_DATA_TYPE = {name: code for code, name in enumerate(
    ("int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64", "float32", "float64")
)}  # fmt: skip

VALUE = union(**{f"{kind}Value": array(name) for name, kind in KINDS.items()})


def attribute_of(*, tags: bool = False, descriptor: bool = True, alarms: bool = False, source: bool = True) -> Field:
    """An NTAttribute with the members asked for, in the order of pvxs and normativeTypesCPP."""
    members = {"name": scalar("str"), "value": ANYTHING}
    members |= {"tags": array("str")} if tags else {}
    members |= {"descriptor": scalar("str")} if descriptor else {}
    members |= {"alarm": ALARM_T, "timeStamp": TIME_T} if alarms else {}
    members |= {"sourceType": scalar("int32"), "source": scalar("str")} if source else {}
    return structure(ATTRIBUTE, **members)


def adcore(attribute: Field | None = None) -> Field:
    return structure(
        NTNDARRAY,
        value=VALUE,
        codec=CODEC_T,
        compressedSize=scalar("int64"),
        uncompressedSize=scalar("int64"),
        dimension=structures(DIMENSION_T),
        uniqueId=scalar("int32"),
        dataTimeStamp=TIME_T,
        attribute=structures(attribute or attribute_of()),
        descriptor=scalar("str"),
        alarm=ALARM_T,
        timeStamp=TIME_T,
        display=DISPLAY_T,
    )


def pvxs(value: Field = VALUE) -> Field:
    return structure(
        NTNDARRAY,
        value=value,
        codec=CODEC_T,
        compressedSize=scalar("int64"),
        uncompressedSize=scalar("int64"),
        uniqueId=scalar("int32"),
        dataTimeStamp=TIME_T,
        alarm=ALARM_T,
        timeStamp=TIME_T,
        dimension=structures(DIMENSION_T),
        attribute=structures(attribute_of(tags=True, alarms=True)),
    )


def pvxs_scalar() -> Field:
    members = dict(VALUE.members) | {"floatValue": scalar("float32"), "doubleValue": scalar("float64")}
    return pvxs(union(**members))


def dimensions(*sizes: int, **others: Any) -> list[dict[str, Any]]:
    """Dimensions, fastest first."""
    return [{"size": size, "fullSize": size, "binning": 1} | others for size in sizes]


def stamp(time_s: float) -> dict[str, int]:
    seconds, nanoseconds = divmod(round(time_s * 1e9), 1_000_000_000)
    return {"secondsPastEpoch": seconds, "nanoseconds": nanoseconds}


@dataclass
class Sent:
    """One update: the values that an emitter gives its structure's members, and what a receiver is to make of it.

    Attributes
    ----------
    members
        Name to value, as `encoding.encode` takes them; empty for the update before the first frame.
    counts
        What the frame shows; None when it must be refused.
    cause
        The name of the `DropCause`; empty for a frame.
    attributes
        Those that a receiver is to see, when it asks for all.
    """

    members: dict[str, Any]
    counts: NDArray[Any] | None = None
    cause: str = ""
    attributes: dict[str, Any] = field(default_factory=dict)
    time: float = 0.0

    def serialise(self, of: Field) -> bytes:
        return encode(of, self.members)


EMPTY = Sent({})
TIME = 1_760_000_000.25  # exact in a float's nanoseconds


def frame(
    counts: NDArray[Any],
    number: int = 1,
    codec: str = "",
    *,
    payload: bytes | None = None,
    union_field: str = "",
    codec_name: str | None = None,
    code: tuple[str, Any] | tuple[()] | None = None,
    cause: str = "",
    attributes: list[dict[str, Any]] | None = None,
    seen: dict[str, Any] | None = None,
    time: float | None = None,
    **members: Any,
) -> Sent:
    """One frame as NDPluginPva sends it; what is named differs.

    Parameters
    ----------
    payload
        The codec's bytes, where `ptychostream.frames.codecs` does not make them.
    codec_name
        Where it says another than the codec it is.
    union_field
        Member of the union that holds the payload, `ushort` for ushortValue.
    code
        Type and value of the codec's parameter; the ScalarType as an int when None, none at all when empty.
    seen
        The attributes that a receiver is to see.
    time
        That it is to see; `members` may name others.
    members
        Further members of the structure.
    """
    name = counts.dtype.name
    raw = np.ascontiguousarray(counts)
    if codec:
        payload = compress(raw, codec) if payload is None else payload
        kind = union_field or "ubyte"
        held = np.frombuffer(payload, next(name for name, kind_ in KINDS.items() if kind_ == kind))
    else:
        kind, held = union_field or KINDS[name], raw.ravel()
    parameter = ("int32", SCALAR_TYPE[name]) if code is None else code
    when = TIME + number if time is None else time
    values: dict[str, Any] = {
        "value": (f"{kind}Value", held),
        "codec": {
            "name": codec if codec_name is None else codec_name,
            "parameters": (scalar(parameter[0]), parameter[1]) if parameter else None,
        },
        "compressedSize": held.nbytes,
        "uncompressedSize": raw.nbytes,
        "dimension": dimensions(*reversed(counts.shape)),
        "uniqueId": number,
        "dataTimeStamp": stamp(when),
        "timeStamp": stamp(when + 0.5),
        "attribute": attributes or [],
    }
    return Sent(values | members, None if cause else counts, cause, seen or {}, when)
