"""The corpus's written part: updates laid out as emitters' sources say, each with what a receiver must make of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from io import BytesIO
from typing import Any

import blosc
import h5py
import hdf5plugin
import numpy as np
from layouts import (
    EMPTY,
    KINDS,
    ND_DATA_TYPE,
    SCALAR_TYPE,
    TIME,
    Sent,
    adcore,
    attribute_of,
    dimensions,
    frame,
    pvxs,
    pvxs_scalar,
    stamp,
)
from numpy.typing import NDArray

from ptychostream.frames.codecs import compress
from ptychostream.rawpva.encoding import ANYTHING, array, scalar, structure
from ptychostream.rawpva.fields import Field

ADCORE = "areaDetector/ADCore: NDPluginPva.cpp, ntndArrayConverter.cpp; NDCodec.cpp"
PVXS_INDEX = "areaDetector/ADCore #562 before 5265fdf, ntndArrayConverterPvxs.cpp: NDDataType, as a long"
PVXS_LONG = "areaDetector/ADCore 5265fdf, ntndArrayConverterPvxs.cpp: ScalarType, as a long"
PVXS_INT = "areaDetector/ADCore 919caf1, ntndArrayConverterPvxs.cpp: ScalarType as an int, whole buffer sent (#566)"

INTEGERS = ("int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64")


@dataclass
class Case:
    """One file of the corpus.

    Attributes
    ----------
    emitter, source
        Who sends such updates, and where that is written.
    about
        What is odd about them.
    type
        The channel's.
    updates
        In order.
    ids
        What `FrameIds` is to make of the frames' ids; None where the raw ones are to come out.
    missed, disordered, resets
        What it is to count.
    """

    emitter: str
    source: str
    about: str
    type: Field
    updates: list[Sent]
    ids: list[int | None] | None = None
    missed: int = 0
    disordered: int = 0
    resets: int = 0
    extra: dict[str, Any] = field(default_factory=dict)


CASES: dict[str, Callable[[], Case]] = {}


def case(make: Callable[[], Case]) -> Callable[[], Case]:
    CASES[make.__name__] = make
    return make


def counts(dtype: str = "uint16", height: int = 6, width: int = 8, seed: int = 1, mean: float = 20.0) -> NDArray[Any]:
    """Counts that no transposition, flip or wrong type leaves as they are."""
    kind = np.dtype(dtype)
    pattern = np.random.default_rng(seed).poisson(mean, (height, width)).astype(kind)
    pattern[0, 0], pattern[0, 1], pattern[1, 0] = 1, 2, 3
    if kind.kind in "iu":
        pattern[-1, -1] = np.iinfo(kind).max  # a dead pixel's mark
        pattern[1, 2] = np.iinfo(kind).min
    return pattern


def hdf5_chunk(pattern: NDArray[Any], options: Any) -> bytes:
    """The chunk that an HDF5 filter makes of a frame."""
    with h5py.File(BytesIO(), "w") as file:
        data = file.create_dataset("data", data=pattern, chunks=pattern.shape, **options)
        skipped, chunk = data.id.read_direct_chunk((0, 0))
        assert not skipped
        return bytes(chunk)


# ------------------------------------------------------------ NDPluginPva


@case
def adcore_uint16() -> Case:
    frames = [frame(counts(seed=n), n) for n in (1, 2, 3)]
    return Case("NDPluginPva", ADCORE, "the plain one, after the empty first update", adcore(), [EMPTY, *frames])


@case
def adcore_types() -> Case:
    frames = [frame(counts(dtype, seed=n), n) for n, dtype in enumerate(INTEGERS)]
    floats = [frame(counts(dtype), n, cause="Type") for n, dtype in enumerate(("float32", "float64", "bool"), start=8)]
    return Case("NDPluginPva", ADCORE, "every type, uncompressed; floats are no counts", adcore(), frames + floats)


@case
def adcore_types_lz4() -> Case:
    frames = [frame(counts(dtype, seed=n), n, "lz4") for n, dtype in enumerate(INTEGERS)]
    floats = [frame(counts(dtype), n, "lz4", cause="Type") for n, dtype in enumerate(("float32", "float64"), start=8)]
    return Case("NDPluginPva", ADCORE, "every type, compressed: bytes and a ScalarType", adcore(), frames + floats)


@case
def adcore_codecs() -> Case:
    codecs = ("lz4", "bslz4", "lz4hdf5", "blosc", "zlib")
    frames = [frame(counts(seed=n, height=40, width=56), n, codec) for n, codec in enumerate(codecs)]
    flat = np.full((16, 24), 77, np.uint8)  # JPEG keeps a constant
    return Case(
        "NDPluginCodec, NDPluginPva", ADCORE, "every codec", adcore(), [*frames, frame(flat, len(codecs), "jpeg")]
    )


@case
def adcore_blosc() -> Case:
    updates = []
    for n, name in enumerate(("blosclz", "lz4", "lz4hc", "zlib", "zstd")):
        for shuffle in (blosc.NOSHUFFLE, blosc.SHUFFLE, blosc.BITSHUFFLE):
            pattern = counts(seed=n, height=24, width=32)
            data = blosc.compress(pattern.tobytes(), typesize=2, clevel=5, shuffle=shuffle, cname=name)
            updates.append(frame(pattern, 3 * n + shuffle, "blosc", payload=data))
    for shuffle in (0, 1, 2):  # the wheel of blosc has no Snappy, hdf5plugin's filter has
        pattern = counts(seed=5, height=64, width=64, mean=0.5)
        data = hdf5_chunk(pattern, hdf5plugin.Blosc(cname="snappy", clevel=5, shuffle=shuffle))
        updates.append(frame(pattern, 15 + shuffle, "blosc", payload=data))
    # what zlib wrote, under Snappy's number, and under one that no compressor has
    data = bytearray(blosc.compress(counts(height=24, width=32).tobytes(), typesize=2, cname="zlib"))
    for n, number in enumerate((2, 7)):
        data[2] = (data[2] & 0x1F) | (number << 5)
        updates.append(frame(counts(height=24, width=32), 18 + n, "blosc", payload=bytes(data), cause="Codec"))
    about = "each of Blosc's compressors, unshuffled, shuffled, bit-shuffled; a wrong and an unknown one are refused"
    return Case("NDPluginCodec, NDPluginPva", ADCORE, about, adcore(), updates)


@case
def adcore_bslz4_of_hdf5() -> Case:
    pattern = counts(height=40, width=56)
    payload = pattern.nbytes.to_bytes(8, "big") + (8192).to_bytes(4, "big") + compress(pattern, "bslz4")
    source = "pvaPy adImageUtility.py (PVAPY_COMPRESSED_PAYLOAD_START); HDF5 bitshuffle filter"
    about = "bitshuffle-LZ4 with the HDF5 filter's 12-byte header"
    return Case("ADEiger, pvaPy", source, about, adcore(), [frame(pattern, 1, "bslz4", payload=payload)])


@case
def pvapy_lz4_of_hdf5() -> Case:
    """Chunks of the HDF5 LZ4 filter under codec "lz4", and three times a MONO frame's size announced."""
    patterns = [counts(d, 12, 20, n) for n, d in enumerate(("uint8", "uint16", "int32", "uint16"))]
    updates = []
    for n, pattern in enumerate(patterns):
        data = hdf5_chunk(pattern, hdf5plugin.LZ4(nbytes=0 if n else 64))
        size = pattern.nbytes * (3 if n % 2 else 1)
        updates.append(frame(pattern, n, "lz4", payload=data, uncompressedSize=size))
    last = patterns[-1]
    updates.append(frame(last, 4, "lz4", uncompressedSize=3 * last.nbytes))
    updates.append(frame(last, 5, uncompressedSize=3 * last.nbytes))
    short = compress(last[:-1], "lz4")
    updates.append(frame(last, 6, "lz4", payload=short, uncompressedSize=3 * last.nbytes, cause="Codec"))
    updates.append(frame(last, 7, "lz4", uncompressedSize=2 * last.nbytes, cause="Type"))
    about = "the HDF5 filter's 16-byte header under codec lz4; MONO frames announce the size of three colours"
    return Case(
        "pvapy-ad-sim-server", "pvapy.cli.adSimServer -hcm, pvapy.utility.adImageUtility", about, adcore(), updates
    )


@case
def adcore_unknown_codec() -> Case:
    updates = [
        frame(counts(), 1, "snappy", payload=bytes(range(40)), cause="Codec"),
        frame(counts(), 2, "LZ4", payload=compress(counts(), "lz4"), cause="Codec"),
        frame(counts(), 3, "lz4", payload=compress(counts(), "lz4")[:-5], cause="Codec"),
        frame(counts(), 4),
    ]
    return Case("NDPluginPva", ADCORE, "codecs that are not known, a payload cut short", adcore(), updates)


@case
def adcore_typed_payload() -> Case:
    """Compressed bytes in the field of the original type, as long as the whole array."""
    source = "areaDetector/ADCore #350: before R3-5"
    updates = [
        _whole_buffer(counts(d, 12, 20, n, 0.3), n, "blosc") for n, d in enumerate(("uint16", "uint32", "int16"))
    ]
    about = "compressed bytes in the field of the original type, whose size leaves the last ones out or adds some"
    return Case("NDPluginPva R3-4", source, about, adcore(), updates)


def _whole_buffer(pattern: NDArray[Any], number: int, codec: str, **others: Any) -> Sent:
    """As emitters send that give the array's whole buffer away, whatever is in it."""
    payload = compress(pattern, codec)
    assert len(payload) <= pattern.nbytes
    buffer = payload.ljust(pattern.nbytes, b"\xa5")
    return frame(
        pattern,
        number,
        codec,
        payload=buffer,
        union_field=KINDS[pattern.dtype.name],
        compressedSize=len(payload),
        **others,
    )


# ------------------------------------------------------------ NDPluginPvxs


def _pvxs(codes: dict[str, int], parameter: str) -> list[Sent]:
    floats = [
        _whole_buffer(counts(d, 12, 20, 1, 0.3), 10 + n, "lz4", code=(parameter, codes[d]), cause="Type")
        for n, d in enumerate(("float32", "float64"))
    ]
    return [
        EMPTY,
        frame(counts(), 1, code=(parameter, codes["uint16"])),
        *(
            _whole_buffer(counts(d, 12, 20, n, 0.3), n, "lz4", code=(parameter, codes[d]))
            for n, d in enumerate(INTEGERS, start=2)
        ),
        *floats,
    ]


@case
def pvxs_nddatatype_long() -> Case:
    about = "codec.parameters is the NDDataType, an int64; compressed bytes in the type's own field, whole buffer"
    return Case("NDPluginPvxs, first", PVXS_INDEX, about, pvxs(), _pvxs(ND_DATA_TYPE, "int64"))


@case
def pvxs_scalartype_long() -> Case:
    about = "codec.parameters is the ScalarType, an int64"
    return Case("NDPluginPvxs, second", PVXS_LONG, about, pvxs(), _pvxs(SCALAR_TYPE, "int64"))


@case
def pvxs_scalartype_int() -> Case:
    about = "codec.parameters is the ScalarType, an int32; the whole buffer is sent"
    return Case("NDPluginPvxs, third", PVXS_INT, about, pvxs(), _pvxs(SCALAR_TYPE, "int32"))


@case
def pvxs_bytes_int() -> Case:
    updates = [frame(counts(d, seed=n), n, "bslz4") for n, d in enumerate(INTEGERS)]
    about = "after the repair of #566: only the compressed bytes, in ubyteValue"
    return Case("NDPluginPvxs", "areaDetector/ADCore #566", about, pvxs(), updates)


@case
def pvxs_nddatatype_bytes() -> Case:
    """The NDDataType with bytes: the item size tells the two codes apart, and for one byte the code's own type."""
    updates = [
        frame(counts(d, seed=n), n, "lz4", code=("int64", ND_DATA_TYPE[d])) for n, d in enumerate(INTEGERS)
    ]  # fmt: skip
    about = "the NDDataType, an int64, with the payload in ubyteValue"
    return Case("NDPluginPvxs", PVXS_INDEX, about, pvxs(), updates)


@case
def pvxs_scalar_floats() -> Case:
    updates = [frame(counts(), 1), Sent({"value": ("floatValue", 1.5), "dimension": dimensions(1, 1)}, cause="Type")]
    about = "floatValue and doubleValue are no arrays in the type"
    return Case("pvxs 0.1", "epics-base/pvxs src/nt.cpp before 1.0", about, pvxs_scalar(), updates)


@case
def codec_parameter_kinds() -> Case:
    kinds = ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")
    updates = [frame(counts(seed=n), n, "lz4", code=(kind, 6)) for n, kind in enumerate(kinds)]
    nothing = frame(counts(), 8, "lz4", code=())
    text = frame(counts(), 9, "lz4", code=("str", "ushort"))
    wide = frame(counts("uint32"), 10, "lz4", code=(), cause="Type")
    wrong = frame(counts(), 11, "lz4", code=("int32", 77), cause="Type")
    about = "codec.parameters of every integer type, a text, or nothing at all"
    return Case("any", "PVA specification: parameters is any", about, adcore(), [*updates, nothing, text, wide, wrong])


# ------------------------------------------------------------ pvaDriver


@case
def pvadriver() -> Case:
    """What it took from another channel, sent on by an NDPluginPva."""
    attributes = [_attribute("ColorMode", "int32", 0), _attribute("PositionX", "float64", 1.5e-6)]
    updates = [EMPTY]
    for n in (7, 9, 8):
        sized = dimensions(8, 6, offset=16, binning=2)
        seen = {"ColorMode": 0, "PositionX": 1.5e-6}
        updates.append(frame(counts(seed=n), n, dimension=sized, attributes=attributes, seen=seen))
    source = "areaDetector/pvaDriver pvaDriver.cpp: ids, times, offsets and attributes are those it received"
    return Case(
        "pvaDriver, NDPluginPva", source, "ids of another server", adcore(), updates, ids=[7, 9, 8], disordered=1
    )  # fmt: skip


# ------------------------------------------------------------ sizes, dimensions, times


@case
def sizes() -> Case:
    pattern = counts(height=24, width=32)
    payload = compress(pattern, "lz4")
    updates = [
        frame(pattern, 1, "lz4", compressedSize=0),
        frame(pattern, 2, "lz4", compressedSize=None),
        frame(pattern, 3, "lz4", payload=payload + bytes(500), compressedSize=len(payload)),
        frame(pattern, 4, "lz4", payload=payload.ljust(pattern.nbytes, b"\0"), compressedSize=len(payload)),
        frame(pattern, 5, "lz4", uncompressedSize=0),
        frame(pattern, 6, "lz4", compressedSize=len(payload) * 100),
        frame(pattern, 7, compressedSize=0, uncompressedSize=0),
        frame(pattern, 8, "lz4", compressedSize=len(payload) - 9, cause="Codec"),
        frame(pattern, 9, "lz4", uncompressedSize=pattern.nbytes - 1, cause="Shape"),
        frame(pattern, 10, "lz4", uncompressedSize=pattern.nbytes * 2, cause="Type"),
        frame(pattern, 11, "lz4", compressedSize=-1),
    ]
    source = "areaDetector/ADCore #566 (whole buffer); PVA specification: compressedSize, uncompressedSize"
    return Case("any", source, "sizes left out, zero, wrong; payloads longer than they say", adcore(), updates)


@case
def dimension_oddities() -> Case:
    pattern = counts()
    rgb = dimensions(3, 8, 2)
    updates = [
        frame(pattern, 1, dimension=dimensions(8, 6, offset=100, binning=2, fullSize=2048)),
        frame(pattern, 2, dimension=dimensions(8, 6, reverse=True)),
        frame(pattern, 3, dimension=dimensions(8, 6, binning=0, fullSize=0)),
        frame(pattern, 4, dimension=dimensions(8, 6, 1)),
        frame(pattern, 5, dimension=dimensions(8, 6, 1, 1)),
        frame(pattern.reshape(8, 6), 6, dimension=dimensions(6, 8)),
        frame(pattern, 7, dimension=rgb, cause="Shape"),
        frame(pattern, 8, dimension=dimensions(48), cause="Shape"),
        frame(pattern, 9, dimension=dimensions(8, 5), cause="Shape"),
        frame(pattern, 10, dimension=dimensions(8, 7), cause="Shape"),
        frame(pattern, 11, dimension=[], cause="Shape"),
        frame(pattern, 12, dimension=dimensions(0, 6), cause="Shape"),
        frame(pattern, 13, dimension=dimensions(-8, -6), cause="Shape"),
        frame(pattern, 14, dimension=dimensions(1 << 30, 1 << 30), cause="Shape"),
        frame(pattern, 15, value=None, cause="Shape"),
        frame(pattern, 16, "lz4", dimension=dimensions(1 << 15, 1 << 15), uncompressedSize=0, cause="Codec"),
    ]
    about = "offset, binning, the reverse flag, a third dimension of one; sizes that cannot be"
    return Case("any", "PVA specification: dimension_t; ADCore NDROI, NDPluginTransform", about, adcore(), updates)


@case
def dimension_null() -> Case:
    updates = [frame(counts(), 1, dimension=[None, *dimensions(6)], cause="Type"), frame(counts(), 2)]
    about = "an element of the dimensions that is null"
    return Case("any", "PVA specification: elements of structure arrays may be null", about, adcore(), updates)


@case
def times() -> Case:
    both = frame(counts(), 1)
    record = frame(counts(), 2, dataTimeStamp=None, timeStamp=stamp(TIME + 2), time=TIME + 2)
    driver = frame(counts(), 3, timeStamp=None, dataTimeStamp=stamp(TIME + 3), time=TIME + 3)
    none = frame(counts(), 4, timeStamp=None, dataTimeStamp=None, time=0.0)
    negative = {"secondsPastEpoch": -5, "nanoseconds": 3}
    before = frame(counts(), 5, dataTimeStamp=negative, timeStamp=stamp(TIME + 5), time=TIME + 5)
    for sent in (record, driver, none, before):
        sent.members = {name: value for name, value in sent.members.items() if value is not None}
    about = "both time stamps, only the record's, only the driver's, none, one before 1970"
    return Case("NDPluginPva", ADCORE, about, adcore(), [both, record, driver, none, before])


# ------------------------------------------------------------ ids


def _counted(ids: list[int], times: list[float] | None = None) -> list[Sent]:
    when = times or [TIME + 0.5 * n for n in range(len(ids))]
    return [
        frame(counts("uint8", 2, 3, n), number, time=t) for n, (number, t) in enumerate(zip(ids, when, strict=True))
    ]


@case
def ids_reset() -> Case:
    updates = _counted([1, 2, 3, 1, 2, 3])
    about = "the counter starts anew within the stream"
    source = "ADCore: uniqueId follows NumImagesCounter of each acquisition"
    return Case("ADCore drivers", source, about, adcore(), updates, ids=[1, 2, 3, 5, 6, 7], resets=1)


@case
def ids_wrap_8() -> Case:
    updates = _counted([253, 254, 255, 0, 1])
    return Case("any", "8-bit frame counters", "wraps at 8 bits", adcore(), updates, ids=[253, 254, 255, 256, 257])


@case
def ids_wrap_16() -> Case:
    raw = [65534, 65535, 0, 1, 2]
    source = "slsDetectorPackage #348; tomostream's remedy"
    ids = [65534, 65535, 65536, 65537, 65538]
    return Case("slsDetector", source, "wraps at 16 bits", adcore(), _counted(raw), ids=ids)


@case
def ids_wrap_24() -> Case:
    top = 1 << 24
    updates = _counted([top - 2, top - 1, 0, 1])
    return Case(
        "any", "24-bit frame counters", "wraps at 24 bits", adcore(), updates, ids=[top - 2, top - 1, top, top + 1]
    )


@case
def ids_negative() -> Case:
    raw = [(1 << 31) - 2, (1 << 31) - 1, -(1 << 31), 1 - (1 << 31), -2, -1, 0, 1]
    half, whole = 1 << 31, 1 << 32
    ids = [half - 2, half - 1, half, half + 1, whole - 2, whole - 1, whole, whole + 1]
    about = "a 32-bit counter in a signed field: negative after 2³¹, wraps at 2³²"
    return Case(
        "any", "PVA specification: uniqueId is an int", about, adcore(), _counted(raw), ids=ids, missed=half - 4
    )


@case
def ids_disordered() -> Case:
    times = [TIME + n for n in (1, 3, 2, 5, 4, 6, 6)]
    updates = _counted([1, 3, 2, 5, 4, 6, 6], times)
    source = "ADEiger #2; plugins with several threads"
    ids: list[int | None] = [1, 3, 2, 5, 4, 6, None]
    return Case(
        "ADEiger", source, "frames overtake one another, one comes twice", adcore(), updates, ids=ids, disordered=2
    )


@case
def ids_missing() -> Case:
    updates = _counted([10, 11, 15, 16])
    about = "throttled: NDPluginPva's MaxByteRate leaves frames out"
    return Case("NDPluginPva", ADCORE, about, adcore(), updates, missed=3, ids=[10, 11, 15, 16])


# ------------------------------------------------------------ attributes


def _attribute(name: str, kind: str, value: Any, **others: Any) -> dict[str, Any]:
    return {"name": name, "value": (scalar(kind), value), "descriptor": f"the {name}", "source": "s", **others}


VALUES: dict[str, Any] = {
    "bool": True, "int8": -3, "uint8": 200, "int16": -300, "uint16": 60000, "int32": -70000, "uint32": 4_000_000_000,
    "int64": -(1 << 40), "uint64": 1 << 40, "float32": 0.5, "float64": 1.5e-6, "str": "Größe µm",
}  # fmt: skip


@case
def attribute_types() -> Case:
    large = {"int8": 65, "uint64": (1 << 63) + 5}
    updates = []
    for number, values in enumerate((VALUES, large), start=1):
        attributes = [_attribute(f"a_{kind}", kind, value) for kind, value in values.items()]
        seen = {f"a_{kind}": value for kind, value in values.items()}
        updates.append(frame(counts(), number, attributes=attributes, seen=seen))
    return Case("NDPluginPva", ADCORE, "an attribute of every scalar type", adcore(), updates)


@case
def attribute_text() -> Case:
    """A text that is not UTF-8, as a device in Latin-1 gives it."""
    unit = b"\xb5m".decode(errors="surrogateescape")
    attributes = [_attribute("Unit", "str", unit), _attribute("x", "float64", 2.0)]
    updates = [frame(counts(), 1, attributes=attributes, seen={"x": 2.0})]
    updates.append(frame(counts(), 2, "lz4", codec_name=unit, cause="Type"))
    return Case("NDPluginPva", ADCORE, "a text attribute and a codec's name in Latin-1", adcore(), updates)


@case
def attribute_arrays() -> Case:
    arrays: list[dict[str, Any]] = []
    for kind, value in VALUES.items():
        arrays.append({"name": f"a_{kind}", "value": (array(kind), [value, value])})
        arrays.append({"name": f"e_{kind}", "value": (array(kind), [])})
    arrays.append(_attribute("ScanID", "str", "s1"))
    about = "arrays of every type, filled and empty: nothing a frame's attribute can hold, but no harm either"
    return Case(
        "p4p, pvaPy", "PVA specification: NTAttribute's value is any", about, adcore(),
        [frame(counts(), 1, attributes=arrays, seen={"ScanID": "s1"})],
    )  # fmt: skip


@case
def attribute_structures() -> Case:
    nested = structure(
        "epics:nt/NTScalar:1.0", value=scalar("float64"), alarm=structure("alarm_t", severity=scalar("int32"))
    )
    attributes = [
        {"name": "undefined"},
        {"name": "nested", "value": (nested, {"value": 2.5})},
        {"name": "", "value": (scalar("int32"), 5)},
        {"name": "any", "value": (structure("holds_any", inner=ANYTHING), {"inner": (scalar("int16"), 4)})},
        _attribute("x", "float64", float("nan")),
        _attribute("inf", "float64", float("inf")),
    ]
    seen = {"x": float("nan"), "inf": float("inf")}
    about = "undefined values (NDAttrUndefined), structures, a name that is empty, NaN and infinity"
    return Case("NDPluginPva, p4p", ADCORE, about, adcore(), [frame(counts(), 1, attributes=attributes, seen=seen)])


@case
def attribute_bare() -> Case:
    bare = attribute_of(descriptor=False, source=False)
    attributes = [{"name": "ScanID", "value": (scalar("str"), "s7")}, {"name": "x", "value": (scalar("float64"), 2.0)}]
    updates = [frame(counts(), 1, attributes=attributes, seen={"ScanID": "s7", "x": 2.0})]
    about = "attributes of a name and a value alone: no descriptor, tags or source"
    return Case("own servers", "PVA specification: these fields are optional", about, adcore(bare), updates)


@case
def attribute_twice() -> Case:
    attributes = [_attribute("x", "float64", 1.0), _attribute("x", "float64", 2.0), _attribute("x", "int32", 3)]
    updates = [frame(counts(), 1, attributes=attributes, seen={"x": 3})]
    return Case("pvaPy, p4p", "attributes are a list", "a name three times: the last one counts", adcore(), updates)


@case
def attribute_null() -> Case:
    attributes: list[Any] = [None, _attribute("x", "float64", 1.0)]
    updates = [frame(counts(), 1, attributes=attributes, seen={"x": 1.0})]
    about = "an element of the attributes that is null"
    return Case("any", "PVA specification: elements of structure arrays may be null", about, adcore(), updates)


# ------------------------------------------------------------ channels that lack something


@case
def without_optional_fields() -> Case:
    """No descriptor, alarm, timeStamp or display."""
    full = adcore()
    bare = structure(full.id, **dict(full.members[:8]))
    updates = [frame(counts(), 1, time=TIME), frame(counts(), 2, "lz4", time=0.0)]
    for sent in updates:
        del sent.members["timeStamp"]
    about = "the fields that an NTNDArray must have, and no others; once without a time"
    return Case("own servers", "Normative Types specification, NTNDArray", about, bare, updates)


@case
def without_needed_fields() -> Case:
    """Not an NTNDArray by the specification."""
    full = adcore()
    kept = {name: member for name, member in full.members if name in ("value", "codec", "dimension")}
    sent = frame(counts(), 1, cause="Type")
    sent.members = {name: value for name, value in sent.members.items() if name in kept}
    about = "no uniqueId, no time"
    return Case("own servers", "Normative Types specification, NTNDArray", about, structure(full.id, **kept), [sent])


@case
def no_ntndarray() -> Case:
    table = structure("epics:nt/NTScalar:1.0", value=scalar("float64"))
    updates = [Sent({"value": 1.5}, cause="Type")]
    return Case("any", "a channel named by mistake", "an NTScalar", table, updates)


def written() -> Iterator[tuple[str, Case]]:
    for name, make in CASES.items():
        yield name, make()
