"""NTNDArrays, built and read.

`build` writes every field that the viewers want; `decode` reads only what it needs and takes the oddities
of real emitters: any integer kind of type code, sizes left out, payloads longer than they say.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import pvaccess as pva
from numpy.typing import NDArray

from ptychostream.codecs import compress, decompress
from ptychostream.errors import FrameError
from ptychostream.frames import DropCause

PV_REQUEST = (
    "record[queueSize={queue}]field(uniqueId,value,dimension,codec,timeStamp,dataTimeStamp,attribute,"
    "compressedSize,uncompressedSize)"
)
"""pvRequest of what `decode` reads, with a queue of `queue` updates on the server's side: without it a
plain monitor drops frames at kilohertz rates."""

Scalar = float | int | str

_UNION_FIELDS: dict[str, np.dtype[Any]] = {
    "byteValue": np.dtype(np.int8),
    "shortValue": np.dtype(np.int16),
    "intValue": np.dtype(np.int32),
    "longValue": np.dtype(np.int64),
    "ubyteValue": np.dtype(np.uint8),
    "ushortValue": np.dtype(np.uint16),
    "uintValue": np.dtype(np.uint32),
    "ulongValue": np.dtype(np.uint64),
    "floatValue": np.dtype(np.float32),
    "doubleValue": np.dtype(np.float64),
}
_FIELD_OF = {dtype: field for field, dtype in _UNION_FIELDS.items()}
_SCALAR_TYPES: dict[int, np.dtype[Any]] = {code: dtype for code, dtype in enumerate(_UNION_FIELDS.values(), start=1)}
_CODE_OF = {dtype: code for code, dtype in _SCALAR_TYPES.items()}
# NDDataType_t: what some emitters write in the ScalarType's place (areaDetector/ADCore#562).
_ND_DATA_TYPES: dict[int, np.dtype[Any]] = dict(
    enumerate(map(np.dtype, ("i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "f4", "f8")))
)
_INT32 = range(-(1 << 31), 1 << 31)
_NOTHING = np.empty(0, np.uint8)


class Encoded(NamedTuple):
    """An array as it travels: the codec's payload, and what it decodes to."""

    payload: bytes
    codec: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]


class RawArray(NamedTuple):
    """What an NTNDArray holds: `array` [H, W] counts, read-only; `time` in seconds since the POSIX epoch."""

    raw_id: int
    time: float
    array: NDArray[np.integer]
    attributes: Mapping[str, Scalar]


def encode(array: NDArray[Any], codec: str) -> Encoded:
    """Compress `array`; raises FrameError when the codec cannot hold it."""
    return Encoded(compress(array, codec), codec, array.shape, array.dtype)


def build(
    array: NDArray[Any] | Encoded,
    unique_id: int,
    time_s: float,
    attributes: Mapping[str, Scalar] | None = None,
    codec: str = "",
    *,
    data_time_s: float | None = None,
    descriptor: str = "",
    units: str = "",
    limits: tuple[float, float] = (0.0, 0.0),
) -> pva.PvObject:
    """A complete NTNDArray, as areaDetector's NDPluginPva emits.

    Parameters
    ----------
    array
        [H, W] of any numeric type, or one compressed beforehand by `encode`.
    unique_id
        Frame number; wraps to the field's 32 bits.
    time_s, data_time_s
        EPICS and acquisition time stamps, seconds since the POSIX epoch; the second defaults to the first.
    attributes
        NDAttributes by name; `ColorMode` is added.
    codec
        Compresses `array` when it is not yet.
    descriptor, units, limits
        For displays; `limits` are the (low, high) of the value.

    Raises
    ------
    FrameError
        Unknown codec, or an array that it cannot hold.
    """
    encoded = array if isinstance(array, Encoded) else encode(array, codec) if codec else None
    if encoded is None:
        assert isinstance(array, np.ndarray)
        shape, dtype, name, payload = array.shape, array.dtype, "", np.ascontiguousarray(array).ravel()
    else:
        shape, dtype, name = encoded.shape, encoded.dtype, encoded.codec
        payload = np.frombuffer(encoded.payload, np.uint8)
    nt = _template(shape, dtype, name, descriptor, units, limits).copy()
    nt["value"] = {_FIELD_OF[payload.dtype]: payload}
    nt["compressedSize"] = payload.nbytes
    nt["uniqueId"] = (unique_id + (1 << 31)) % (1 << 32) - (1 << 31)
    stamp = _time_stamp(time_s)
    nt["timeStamp"] = stamp
    nt["dataTimeStamp"] = stamp if data_time_s is None else _time_stamp(data_time_s)
    nt["attribute"] = [_attribute(name, value) for name, value in {"ColorMode": 0, **(attributes or {})}.items()]
    return nt


@lru_cache(maxsize=64)
def _template(
    shape: tuple[int, ...],
    dtype: np.dtype[Any],
    codec: str,
    descriptor: str,
    units: str,
    limits: tuple[float, float],
) -> pva.PvObject:
    """What does not change from frame to frame; copying it costs a twentieth of building it."""
    nt = pva.NtNdArray()
    nt["dimension"] = [
        {"size": size, "offset": 0, "fullSize": size, "binning": 1, "reverse": False} for size in reversed(shape)
    ]
    nt["uncompressedSize"] = math.prod(shape) * dtype.itemsize
    nt["codec"] = pva.PvCodec(codec, pva.PvInt(_CODE_OF[dtype]))
    nt["descriptor"] = descriptor
    low, high = limits
    nt["display"] = {"limitLow": low, "limitHigh": high, "description": descriptor, "format": "", "units": units}
    return nt


def _time_stamp(time_s: float) -> dict[str, int]:
    seconds, nanoseconds = divmod(round(time_s * 1e9), 1_000_000_000)
    return {"secondsPastEpoch": seconds, "nanoseconds": nanoseconds, "userTag": 0}


def _attribute(name: str, value: Scalar) -> dict[str, Any]:
    held: Any
    if isinstance(value, str):
        held = pva.PvString(value)
    elif isinstance(value, int | np.integer):
        held = pva.PvInt(int(value)) if value in _INT32 else pva.PvLong(int(value))
    else:
        held = pva.PvDouble(float(value))
    return {"name": name, "value": held, "descriptor": "", "source": "", "sourceType": 0}


def decode(pv_object: pva.PvObject, attributes: Collection[str] = ()) -> RawArray | None:
    """Read one update of an NTNDArray channel.

    Parameters
    ----------
    pv_object
        The update; needs the fields of `PV_REQUEST`.
    attributes
        Names of the NTAttributes wanted; the others are left out, and reading none saves time.

    Returns
    -------
    RawArray or None
        None for the empty update that a channel sends before its first frame.

    Raises
    ------
    FrameError
        Its cause says what is wrong: `TYPE` (not integers, not an NTNDArray), `SHAPE`, `CODEC`.
    """
    # The typed getters cost a quarter of `pv_object[...]`, and this runs thousands of times a second.
    try:
        raw_id = pv_object.getInt("uniqueId")
        dimensions = pv_object.getStructureArray("dimension")
        field = pv_object.getSelectedUnionFieldName("value")
        if not dimensions and not field:
            return None
        payload = np.asarray(pv_object.getUnion("value").getScalarArray(field)) if field else _NOTHING
        shape = _shape(dimensions, raw_id)
        codec = pv_object.getString("codec.name")
        if codec:
            array = _decompress(pv_object, codec, payload, field, shape, raw_id)
        else:
            array = _integers(payload, raw_id)
            if array.size != math.prod(shape):
                raise _bad(DropCause.SHAPE, f"{array.size} values, where its dimensions are {shape}", raw_id)
            array = array.reshape(shape)
        array.setflags(write=False)
        return RawArray(raw_id, _time(pv_object), array, _attributes(pv_object, attributes) if attributes else {})
    except (pva.PvaException, KeyError, TypeError) as error:
        remedy = "name the channel of a detector's PVA plugin"
        raise FrameError(DropCause.TYPE, f"not an NTNDArray: {error}", where="frame", remedy=remedy) from error


def _bad(cause: DropCause, what: str, raw_id: int) -> FrameError:
    remedy = "look at the detector's data type, region and codec settings"
    return FrameError(cause, what, where=f"frame {raw_id}", remedy=remedy)


def _shape(dimensions: list[dict[str, Any]], raw_id: int) -> tuple[int, int]:
    """[H, W] from the dimensions, fastest first; a third dimension of one is let through."""
    sizes = [int(dimension["size"]) for dimension in reversed(dimensions)]
    while len(sizes) > 2 and sizes[0] == 1:
        del sizes[0]
    if len(sizes) != 2 or min(sizes) < 1:
        raise _bad(DropCause.SHAPE, f"dimensions {tuple(sizes)}, where a frame has two", raw_id)
    return sizes[0], sizes[1]


def _integers(array: NDArray[Any], raw_id: int) -> NDArray[np.integer]:
    if array.dtype.kind not in "iu":
        raise _bad(DropCause.TYPE, f"values of type {array.dtype}, where counts are integers", raw_id)
    return array


def _decompress(
    pv_object: pva.PvObject, codec: str, payload: NDArray[Any], field: str, shape: tuple[int, int], raw_id: int
) -> NDArray[np.integer]:
    if payload.dtype.itemsize != 1:
        raise _bad(DropCause.CODEC, f"a {codec} payload in {field}, where it is bytes", raw_id)
    dtype = _original_type(pv_object, shape, raw_id)
    sent = pv_object.getLong("compressedSize")
    if 0 < sent < len(payload):  # some emitters send their whole buffer (areaDetector/ADCore#566)
        payload = payload[:sent]
    return decompress(payload.view(np.uint8), codec, shape, dtype)


def _original_type(pv_object: pva.PvObject, shape: tuple[int, int], raw_id: int) -> np.dtype[Any]:
    """The type before compression, from the code in the codec's parameters and the announced size.

    The code is a ScalarType, or in some emitters an NDDataType; the item size tells which.
    """
    code = pv_object["codec.parameters"][0].get("value")
    if isinstance(code, str) and len(code) == 1:
        code = ord(code)  # how pvapy gives a signed byte
    size = pv_object.getLong("uncompressedSize")
    itemsize, rest = divmod(size, math.prod(shape))
    if rest:
        raise _bad(DropCause.SHAPE, f"{size} bytes uncompressed do not fill {shape}", raw_id)
    readings: list[np.dtype[Any]] = []
    if isinstance(code, int) and not isinstance(code, bool):
        readings = [table[code] for table in (_SCALAR_TYPES, _ND_DATA_TYPES) if code in table]
    elif itemsize in (1, 2):  # no code: counts this small are never floats, and never negative
        readings = [np.dtype(f"u{itemsize}")]
    for dtype in readings:
        if itemsize in (0, dtype.itemsize):
            if dtype.kind not in "iu":
                raise _bad(DropCause.TYPE, f"values of type {dtype}, where counts are integers", raw_id)
            return dtype
    raise _bad(DropCause.TYPE, f"type code {code!r} does not go with {itemsize} bytes a pixel", raw_id)


def _time(pv_object: pva.PvObject) -> float:
    """The driver's time where it gave one, else the record's; 0 where neither is."""
    for field in ("dataTimeStamp", "timeStamp"):
        seconds: int = pv_object.getLong(f"{field}.secondsPastEpoch")
        if seconds > 0:
            return seconds + 1e-9 * int(pv_object.getInt(f"{field}.nanoseconds"))
    return 0.0


def _attributes(pv_object: pva.PvObject, wanted: Collection[str]) -> dict[str, Scalar]:
    found: dict[str, Scalar] = {}
    for attribute in pv_object.getStructureArray("attribute"):
        if attribute["name"] in wanted:
            value = attribute["value"][0].get("value")
            if isinstance(value, float | int | str):
                found[attribute["name"]] = value
    return found
