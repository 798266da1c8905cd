"""NTNDArrays of every wrong structure: a frame, None for the empty update, or a FrameError with a cause."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import numpy as np
import pvaccess as pva
from fuzz.reader import Reader
from p4p import Type, Value

from ptychostream.errors import DropCause, FrameError
from ptychostream.frames.codecs import CODECS, compress
from ptychostream.plugins.consumer.pvapy_reading import decode
from ptychostream.pva.reading import RawArray, decode_value

_FIELDS: dict[str, tuple[Any, str]] = {
    "booleanValue": (pva.BOOLEAN, "?"), "byteValue": (pva.BYTE, "i1"), "shortValue": (pva.SHORT, "i2"),
    "intValue": (pva.INT, "i4"), "longValue": (pva.LONG, "i8"), "ubyteValue": (pva.UBYTE, "u1"),
    "ushortValue": (pva.USHORT, "u2"), "uintValue": (pva.UINT, "u4"), "ulongValue": (pva.ULONG, "u8"),
    "floatValue": (pva.FLOAT, "f4"), "doubleValue": (pva.DOUBLE, "f8"),
}  # fmt: skip
_UNION = {name: [kind] for name, (kind, _) in _FIELDS.items()}
_INTEGERS = (pva.INT, pva.LONG, pva.STRING, pva.DOUBLE, [pva.INT], {"a": pva.INT}, ())
_DIMENSION = {"size": pva.INT, "offset": pva.INT, "fullSize": pva.INT, "binning": pva.INT, "reverse": pva.BOOLEAN}
_DIMENSIONS = ([_DIMENSION], [{"size": pva.LONG}], [{"length": pva.INT}], [{"size": pva.STRING}], [pva.INT], pva.INT)
_STAMP = {"secondsPastEpoch": pva.LONG, "nanoseconds": pva.INT, "userTag": pva.INT}
_STAMPS = (_STAMP, {"secondsPastEpoch": pva.STRING, "nanoseconds": pva.INT}, {"seconds": pva.LONG}, pva.DOUBLE)
_CODECS = ({"name": pva.STRING, "parameters": ()}, {"name": pva.STRING, "parameters": pva.INT}, {"name": pva.INT},
           {"name": pva.STRING, "parameters": ({"code": pva.INT},)}, {"name": pva.STRING}, pva.STRING)  # fmt: skip
_ATTRIBUTES = ([{"name": pva.STRING, "value": ()}], [{"name": pva.STRING, "value": pva.INT}], [{"value": ()}],
               [{"name": pva.INT, "value": ()}], pva.INT)  # fmt: skip
_P4P_CODES = {
    pva.BOOLEAN: "?", pva.BYTE: "b", pva.SHORT: "h", pva.INT: "i", pva.LONG: "l", pva.UBYTE: "B", pva.USHORT: "H",
    pva.UINT: "I", pva.ULONG: "L", pva.FLOAT: "f", pva.DOUBLE: "d", pva.STRING: "s",
}  # fmt: skip


class Held(NamedTuple):
    """What a variant union holds, for pvapy; p4p takes the plain value."""

    make: Callable[[Any], Any]
    value: Any


_HELD: tuple[Callable[[Reader], Held | None], ...] = (
    lambda _: None,
    lambda reader: Held(pva.PvDouble, reader.number()),
    lambda reader: Held(pva.PvString, reader.text()),
    lambda _: Held(lambda _: pva.PvScalarArray(pva.DOUBLE), np.zeros(2)),
    lambda _: Held(lambda _: pva.PvObject({"value": pva.INT}), None),
    lambda _: Held(lambda _: pva.PvObject({"other": pva.INT}), None),
    lambda _: Held(pva.PvBoolean, True),
)
_WANTED = ("X", "Y", "ScanID")


def seeds() -> Iterable[bytes]:
    """A frame as areaDetector sends it, in each codec, and the empty update."""
    counts = np.random.default_rng(0).poisson(1.0, (8, 16)).astype("u1")
    yield bytes(24)
    stamps = [0, 0, 5, 0] * 2
    for number, codec in enumerate(CODECS):
        payload = counts.tobytes() if not codec else compress(counts, codec)
        # id 3; ubyteValue; 16 × 8; codec with type code 5; no sizes; no attributes
        head = [0, 0, 3, 0, 5, 0, 0, 2, 0, 16, 8, 0, 0, number, 8, 5, *[0] * 6, *stamps, 0, 0, 0]
        yield bytes(head) + payload


def check(data: bytes) -> None:
    """Build one structure with each of the two libraries that updates come through, and decode it."""
    structure, values = describe(Reader(data))
    made = (_pvapy(structure, values), decode), (_p4p(structure, values), decode_value)
    for update, read in made:
        if update is None:
            continue
        try:
            raw = read(update, _WANTED)
        except FrameError as error:
            assert error.cause in (DropCause.TYPE, DropCause.SHAPE, DropCause.CODEC)
            assert error.remedy
        else:
            if raw is not None:
                assert raw.array.ndim == 2
                assert raw.array.dtype.kind in "iu"
                assert not raw.array.flags.writeable
                assert isinstance(raw.raw_id, int)
                assert isinstance(raw.time, float)
                int(raw.array.sum())


def decode_both(data: bytes) -> list[RawArray | None]:
    """What each of the libraries gives; raises what `decode` raises."""
    structure, values = describe(Reader(data))
    return [decode(_pvapy(structure, values), _WANTED), decode_value(_p4p(structure, values), _WANTED)]


def describe(reader: Reader) -> tuple[dict[str, Any], dict[str, Any]]:
    """The structure that the bytes ask for, in pvapy's notation, and its values."""
    structure: dict[str, Any] = {}
    values: dict[str, Any] = {}

    def put(name: str, kind: Any, value: Any) -> None:
        structure[name] = kind
        if value is not None:
            values[name] = value

    if reader.byte() < 240:
        kind = reader.choice(_INTEGERS) if reader.byte() > 200 else pva.INT
        put("uniqueId", kind, _scalar(reader, kind))
    union = reader.byte()
    payload_field, length = reader.choice(tuple(_FIELDS)), reader.byte()
    if union < 240:
        structure["value"] = (_UNION,) if union < 200 else () if union < 220 else [pva.UBYTE]
    put_dimensions(reader, put)
    put_codec(reader, put)
    for name in ("compressedSize", "uncompressedSize"):
        if reader.byte() < 240:
            kind = reader.choice(_INTEGERS) if reader.byte() > 200 else pva.LONG
            put(name, kind, _scalar(reader, kind))
    for name in ("timeStamp", "dataTimeStamp"):
        if reader.byte() < 240:
            kind = reader.choice(_STAMPS) if reader.byte() > 200 else _STAMP
            put(name, kind, _stamp(reader, kind))
    put_attributes(reader, put)
    payload = reader.rest()[: length or None]
    kind, dtype = _FIELDS[payload_field]
    array = np.frombuffer(payload[: len(payload) // np.dtype(dtype).itemsize * np.dtype(dtype).itemsize], dtype)
    if union < 200 and (union < 160 or len(array)):
        values["value"] = {payload_field: array}
    elif "value" in structure and union >= 220:
        values["value"] = np.frombuffer(payload, np.uint8)
    return structure, values


_CANNOT_BE_MADE = (TypeError, ValueError, OverflowError, KeyError, RuntimeError)


def _pvapy(structure: dict[str, Any], values: dict[str, Any]) -> pva.PvObject | None:
    def plain(value: Any) -> Any:
        if isinstance(value, Held):
            return value.make(value.value)
        if isinstance(value, dict):
            return {name: plain(inner) for name, inner in value.items()}
        return [plain(inner) for inner in value] if isinstance(value, list) else value

    try:
        nt = pva.PvObject(structure)
        for name, value in values.items():
            nt[name] = plain(value)
    except (pva.PvaException, *_CANNOT_BE_MADE):
        return None
    return nt


def _p4p(structure: dict[str, Any], values: dict[str, Any]) -> Value | None:
    def code(name: str, kind: Any) -> tuple[str, Any]:
        if kind == ():
            return name, "v"
        array = "a" * isinstance(kind, list)
        inner = kind[0] if isinstance(kind, list | tuple) else kind
        if isinstance(inner, dict):
            letter = "U" if isinstance(kind, tuple) else "S"
            return name, (array + letter, None, [code(field, of) for field, of in inner.items()])
        return name, array + _P4P_CODES[inner]

    def plain(value: Any) -> Any:
        if isinstance(value, Held):
            return value.value
        if isinstance(value, dict):
            return {name: plain(inner) for name, inner in value.items()}
        return [plain(inner) for inner in value] if isinstance(value, list) else value

    try:
        made = Value(Type([code(name, kind) for name, kind in structure.items()]))
        for name, value in values.items():
            chosen = name == "value" and isinstance(value, dict)
            made[name] = next(iter(value.items())) if chosen else plain(value)
    except _CANNOT_BE_MADE:
        return None
    return made


def put_dimensions(reader: Reader, put: Any) -> None:
    if reader.byte() >= 240:
        return
    count = reader.byte() % 5
    kind = reader.choice(_DIMENSIONS) if reader.byte() > 200 else _DIMENSIONS[0]
    sizes = [reader.integer() for _ in range(count)]
    if isinstance(kind, list) and isinstance(kind[0], dict):
        field, of = next(iter(kind[0].items()))
        put("dimension", kind, [{field: str(size) if of is pva.STRING else size} for size in sizes])
    else:
        put("dimension", kind, sizes if isinstance(kind, list) else None)


def put_codec(reader: Reader, put: Any) -> None:
    if reader.byte() >= 240:
        return
    kind = reader.choice(_CODECS) if reader.byte() > 200 else _CODECS[0]
    name = reader.choice((*CODECS, "nonsense", "é"))
    parameter, code = reader.byte(), reader.integer()
    if not isinstance(kind, dict):
        put("codec", kind, name)
        return
    value: dict[str, Any] = {"name": name if kind["name"] is pva.STRING else code}
    if kind.get("parameters") == () and parameter:
        small = code % 128
        value["parameters"] = (Held(pva.PvInt, small), Held(pva.PvLong, code), Held(pva.PvString, name),
                               Held(lambda number: pva.PvByte(chr(number)), small), Held(pva.PvDouble, float(code)),
                               Held(pva.PvBoolean, True), Held(lambda _: pva.PvScalarArray(pva.INT), np.zeros(3, int)),
                               Held(lambda _: pva.PvObject({"a": pva.INT}), None))[parameter % 8]  # fmt: skip
    put("codec", kind, value)


def put_attributes(reader: Reader, put: Any) -> None:
    if reader.byte() >= 240:
        return
    kind = reader.choice(_ATTRIBUTES) if reader.byte() > 200 else _ATTRIBUTES[0]
    made: list[dict[str, Any]] = []
    for _ in range(reader.byte() % 4):
        attribute: dict[str, Any] = {}
        if isinstance(kind, list) and "name" in kind[0]:
            attribute["name"] = reader.choice((*_WANTED, "é")) if kind[0]["name"] is pva.STRING else reader.byte()
        if isinstance(kind, list) and kind[0].get("value") == ():
            held = reader.choice(_HELD)(reader)
            if held is not None:
                attribute["value"] = held
        made.append(attribute)
    put("attribute", kind, made if isinstance(kind, list) else None)


def _scalar(reader: Reader, kind: Any) -> Any:
    value = reader.integer()
    if kind is pva.INT:
        return (value + (1 << 31)) % (1 << 32) - (1 << 31)
    if kind is pva.STRING:
        return reader.text()
    return value if kind is pva.LONG else float(value) if kind is pva.DOUBLE else None


def _stamp(reader: Reader, kind: Any) -> Any:
    if not isinstance(kind, dict):
        return reader.number()
    seconds = reader.integer()
    field, of = next(iter(kind.items()))
    stamp = {field: str(seconds) if of is pva.STRING else seconds}
    if "nanoseconds" in kind:
        stamp["nanoseconds"] = reader.byte() << 22
    return stamp
