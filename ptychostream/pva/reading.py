"""Decode the updates of an NTNDArray channel that p4p reads.

It accepts the updates of real emitters: a type code of any integer type, missing sizes, payloads that are too long.
`ptychostream.plugins.consumer.pvapy_reading` reads updates of pvapy and checks them with the functions of this module.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from functools import partial
from typing import Any, NamedTuple, NoReturn, TypeVar

import numpy as np
from numpy.typing import NDArray
from p4p import Value

from ptychostream.errors import DropCause, FrameError
from ptychostream.frames.codecs import decompress
from ptychostream.frames.stream_watch import PLAIN, UNSAID, Region, region_of

UPDATE_FIELDS = (
    "field(uniqueId,value,dimension,codec,timeStamp,dataTimeStamp,attribute,compressedSize,uncompressedSize)"
)
"""The required fields of an NTNDArray, as in a pvRequest."""

Scalar = float | int | str
T = TypeVar("T")
ShapeFault = Callable[[tuple[int, int]], str]
"""[H, W] → why such a frame is not wanted; "": it is."""


def any_shape(_: tuple[int, int]) -> str:
    """Every shape is wanted."""
    return ""


# pvData's ScalarType, the code in the codec's parameters
SCALAR_TYPES: dict[int, np.dtype[Any]] = dict(
    enumerate(map(np.dtype, ("i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f4", "f8")), start=1)
)
# NDDataType_t, which some emitters write in place of the ScalarType (areaDetector/ADCore#562).
_ND_DATA_TYPES: dict[int, np.dtype[Any]] = dict(
    enumerate(map(np.dtype, ("i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "f4", "f8")))
)


class RawArray(NamedTuple):
    """A decoded NTNDArray. `array` has the counts [H, W], read-only. `time` is in seconds since the POSIX epoch.

    `region` is what its dimensions say of the sensor, see `ptychostream.frames.stream_watch`. `codec` is the name of
    the codec that it came with.
    """

    raw_id: int
    time: float
    array: NDArray[np.integer]
    attributes: Mapping[str, Scalar]
    region: Region = UNSAID
    codec: str = ""


class RawPayload(NamedTuple):
    """An NTNDArray with its payload as it was sent.

    Attributes
    ----------
    raw_id, time, attributes
        See `RawArray`.
    payload
        The codec's bytes, or the flat counts without a codec. It is not checked.
    codec, shape, dtype
        Arguments for `ptychostream.frames.codecs.decompress`.
    """

    raw_id: int
    time: float
    payload: NDArray[Any]
    codec: str
    shape: tuple[int, int]
    dtype: np.dtype[Any]
    attributes: Mapping[str, Scalar]
    region: Region = UNSAID


class Packed(NamedTuple):
    """A compressed array as its update describes it.

    Attributes
    ----------
    codec, code
        Name of the codec, and its parameter, which gives the original type.
    sent, size
        `compressedSize` and `uncompressedSize`. 0 if the emitter gave none.
    long
        Whether the code was sent as a 64-bit integer. It is only correct for code 1.
    """

    codec: str
    code: object
    sent: int
    size: int
    long: bool = False


def decode_value(
    value: Value | Mapping[str, Any], attributes: Collection[str] = (), fault: ShapeFault = any_shape
) -> RawArray | None:
    """Decode one update.

    Parameters
    ----------
    value
        The update of p4p without an NT handler, or a mapping with the same keys. It must have `UPDATE_FIELDS`.
    attributes
        Names of the requested NTAttributes. The others are not read. An empty collection is the fastest.
    fault
        Judges the shape. A frame of another shape is refused before it is decoded.

    Returns
    -------
    RawArray or None
        None for the empty update that a channel sends before its first frame.

    Raises
    ------
    FrameError
        Cause `TYPE`: no integers or no NTNDArray. Cause `SHAPE` or `CODEC`: shape or codec are wrong.
    """
    update = _read_value(value, attributes, partial(counts_of, fault=fault))
    return None if update is None else RawArray(*update)


def decode_taken(
    update: tuple[Any, ...] | Mapping[str, Any], attributes: Collection[str] = (), fault: ShapeFault = any_shape
) -> RawArray | None:
    """Like `decode_value`, for an update of a monitor from `ptychostream.pva.array_monitor`."""
    if not isinstance(update, tuple):
        return decode_value(update, attributes, fault)
    raw_id, time, payload, kind, rows, columns, found, *further = update
    _check_wanted((rows, columns), fault, raw_id)
    region = further[1] if len(further) > 1 else PLAIN
    if not further or further[0] is None:
        return RawArray(raw_id, time, np.ndarray((rows, columns), SCALAR_TYPES[kind], payload), found, region)
    values = np.frombuffer(payload, SCALAR_TYPES[kind])
    packed = Packed(*further[0])
    array = counts_of(raw_id, [columns, rows], values, packed)
    return RawArray(raw_id, time, array, found, region, packed.codec)


def payload_of_value(value: Value, attributes: Collection[str] = ()) -> RawPayload | None:
    """Like `decode_value`, but without decompression, to pass on the frame as it was sent."""
    update = _read_value(value, attributes, _as_sent)
    if update is None:
        return None
    raw_id, time, sent, found, region, _ = update
    return RawPayload(raw_id, time, *sent, found, region)


def _read_value(
    value: Value | Mapping[str, Any],
    attributes: Collection[str],
    make: Callable[[int, list[int], Any, Packed | None], T],
) -> tuple[int, float, T, dict[str, Scalar], Region, str] | None:
    """Id, time, the result of `make` for the payload, attributes, region, and codec."""
    # value["a.b"] takes a third of the time of value.a.b.
    try:
        raw_id = value["uniqueId"]
        if not isinstance(raw_id, int):
            raise TypeError(f"uniqueId is {raw_id!r}")
        dimensions = value["dimension"]
        payload = value["value"]
        if not dimensions and payload is None:
            return None
        packed = packed_of(value)
        made = make(raw_id, [dimension["size"] for dimension in dimensions], payload, packed)
        time = posix_time(value["dataTimeStamp.secondsPastEpoch"], value["dataTimeStamp.nanoseconds"])
        if not time and "timeStamp" in value:  # optional in an NTNDArray
            time = posix_time(value["timeStamp.secondsPastEpoch"], value["timeStamp.nanoseconds"])
        found: dict[str, Scalar] = {}
        for attribute in value["attribute"] if attributes else ():
            try:
                if attribute is not None and (name := attribute["name"]) in attributes:
                    held = attribute["value"]
                    if isinstance(held, float | int | str):
                        found[name] = held
            except UnicodeDecodeError:
                continue  # a text in another encoding cannot be used
        return raw_id, time, made, found, region_of(dimensions), packed.codec if packed is not None else ""
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        not_an_ntndarray(error)


def packed_of(value: Value | Mapping[str, Any]) -> Packed | None:
    """How an update is compressed; None: it is not."""
    codec = value["codec.name"]
    if not codec:
        return None
    code = value["codec.parameters"]
    long = code == 1 and "int64_t" in str(value["codec"])  # p4p gives the type nowhere else
    return Packed(codec, code, value["compressedSize"], value["uncompressedSize"], long)


def not_an_ntndarray(error: Exception) -> NoReturn:
    """Raise the FrameError for an update in which a field of an NTNDArray is missing or has another type."""
    remedy = "name the channel of a detector's PVA plugin"
    raise FrameError(DropCause.TYPE, f"not an NTNDArray: {error}", where="frame", remedy=remedy) from error


def _bad(cause: DropCause, what: str, raw_id: int) -> FrameError:
    remedy = "check the detector's data type, region and codec settings"
    return FrameError(cause, what, where=f"frame {raw_id}", remedy=remedy, raw_id=raw_id)


def _check_wanted(shape: tuple[int, int], fault: ShapeFault, raw_id: int) -> None:
    if what := fault(shape):
        raise _bad(DropCause.SHAPE, what, raw_id)


def counts_of(
    raw_id: int, sizes: list[int], payload: Any, packed: Packed | None, fault: ShapeFault = any_shape
) -> NDArray[np.integer]:
    """Decode the counts [H, W], read-only.

    Parameters
    ----------
    raw_id
        Id of the update, for messages.
    sizes
        Sizes of the dimensions, the fastest first.
    payload
        The selected field of the union, flat. None: an empty union.
    packed
        Description of the compression. None: not compressed.
    fault
        See `decode_value`.

    Raises
    ------
    FrameError
        See `decode_value`.
    """
    sent, codec, shape, dtype = _as_sent(raw_id, sizes, payload, packed, fault)
    try:
        array = decompress(sent, codec, shape, dtype) if codec else sent.reshape(shape)
    except FrameError as error:
        error.raw_id = raw_id
        raise
    array.setflags(write=False)
    return array


def _as_sent(
    raw_id: int, sizes: list[int], payload: Any, packed: Packed | None, fault: ShapeFault = any_shape
) -> tuple[NDArray[Any], str, tuple[int, int], np.dtype[Any]]:
    """Payload, codec, shape [H, W] and type of the counts."""
    shape = _shape(sizes, raw_id)
    _check_wanted(shape, fault, raw_id)
    values = np.empty(0, np.uint8) if payload is None else np.asarray(payload)
    if packed is not None:
        return _packed_bytes(values, packed), packed.codec, shape, _original_type(packed, values.dtype, shape, raw_id)
    if values.dtype.kind not in "iu":
        raise _bad(DropCause.TYPE, f"values of type {values.dtype}, where counts are integers", raw_id)
    if values.size != math.prod(shape):
        raise _bad(DropCause.SHAPE, f"{values.size} values, where its dimensions are {shape}", raw_id)
    return values, "", shape, values.dtype


def _shape(sizes: list[int], raw_id: int) -> tuple[int, int]:
    """[H, W] from the sizes, which have the fastest first. A third dimension of size one is accepted."""
    while len(sizes) > 2 and sizes[-1] == 1:
        del sizes[-1]
    if len(sizes) != 2 or min(sizes) < 1:
        raise _bad(DropCause.SHAPE, f"dimensions {tuple(reversed(sizes))}, where a frame has two", raw_id)
    return sizes[1], sizes[0]


def _packed_bytes(payload: NDArray[Any], packed: Packed) -> NDArray[np.uint8]:
    data = payload.view(np.uint8)
    # some emitters send their complete buffer (areaDetector/ADCore#566)
    return data[: packed.sent] if 0 < packed.sent < len(data) else data


def _original_type(packed: Packed, sent: np.dtype[Any], shape: tuple[int, int], raw_id: int) -> np.dtype[Any]:
    """The type before compression, from the code in the codec's parameters and the announced size.

    The code is a ScalarType, or for some emitters an NDDataType. The item size decides which one. Code 1 is a signed
    byte in the first case and an unsigned byte in the second. For it the type `sent` decides, because those emitters
    (NDPluginPvxs, and NDPluginPva before R3-5) send the compressed bytes in the field of the original type, and the
    code as a long.
    """
    code = packed.code
    itemsize, rest = divmod(packed.size, math.prod(shape))
    if rest:
        raise _bad(DropCause.SHAPE, f"{packed.size} bytes uncompressed do not fill {shape}", raw_id)
    readings: list[np.dtype[Any]] = []
    if sent.itemsize > 1 or (code == 1 and packed.long):
        readings = [sent]
    elif isinstance(code, int) and not isinstance(code, bool):
        readings = [table[code] for table in (SCALAR_TYPES, _ND_DATA_TYPES) if code in table]
    elif itemsize in (1, 2):  # no code: counts of this size are never floats and never negative
        readings = [np.dtype(f"u{itemsize}")]
    # pvapy announces three times the size of a MONO frame, as if it had three colours: the payload decides
    fits = [dtype for dtype in readings if itemsize in (0, dtype.itemsize)]
    for dtype in fits or [dtype for dtype in readings if itemsize == 3 * dtype.itemsize]:
        if dtype.kind not in "iu":
            raise _bad(DropCause.TYPE, f"values of type {dtype}, where counts are integers", raw_id)
        return dtype
    raise _bad(DropCause.TYPE, f"type code {code!r} does not go with {itemsize} bytes a pixel", raw_id)


def posix_time(seconds: int, nanoseconds: int) -> float:
    """A time stamp in seconds since the POSIX epoch. 0 if the emitter gave none."""
    return seconds + 1e-9 * nanoseconds if seconds > 0 else 0.0
