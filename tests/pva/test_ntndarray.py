"""NTNDArrays: what `build` writes, and what `decode` makes of odd emitters."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pvaccess as pva
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from ptychostream.errors import DropCause, FrameError
from ptychostream.frames.codecs import CODECS, LOSSY, compress
from ptychostream.plugins.consumer.pvapy_reading import decode
from ptychostream.sim.replay.ntndarray import Encoded, build, encode

INTEGERS = ["int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64"]
SIGNED_FIRST = ["int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"]
SCALAR_TYPE = dict(zip(SIGNED_FIRST, range(1, 9), strict=True))
ND_DATA_TYPE = dict(zip(INTEGERS, range(8), strict=True))
COUNTS = np.random.default_rng(1).poisson(4, (48, 64)).astype(np.uint16)
TIME = 1_760_000_000.123456


def refused(nt: pva.PvObject, cause: DropCause) -> FrameError:
    with pytest.raises(FrameError) as caught:
        decode(nt)
    assert caught.value.cause is cause
    return caught.value


def dimensions(*sizes: int) -> list[pva.PvDimension]:
    return [pva.PvDimension(size, 0, size, 1, False) for size in sizes]


@pytest.mark.slow
@pytest.mark.parametrize("codec", [codec for codec in CODECS if codec not in LOSSY])
@given(array=st.sampled_from(INTEGERS).flatmap(lambda dtype: hnp.arrays(dtype, (5, 9))), number=st.integers(0, 1 << 33))
def test_every_type_and_codec_comes_back(codec: str, array: NDArray[Any], number: int) -> None:
    raw = decode(build(array, number, TIME, codec=codec))
    assert raw is not None
    assert raw.array.dtype == array.dtype
    assert np.array_equal(raw.array, array)
    assert raw.raw_id & 0xFFFFFFFF == number & 0xFFFFFFFF
    assert not raw.array.flags.writeable


def test_attributes_and_times() -> None:
    attributes = {"x": 1.5e-6, "n": 7, "big": 1 << 40, "ScanID": "scan 7", "other": 1.0}
    nt = build(COUNTS, 3, TIME, attributes, data_time_s=TIME - 1)
    raw = decode(nt, {"x", "n", "big", "ScanID", "absent"})
    assert raw is not None
    assert raw.attributes == {"x": 1.5e-6, "n": 7, "big": 1 << 40, "ScanID": "scan 7"}
    assert raw.time == pytest.approx(TIME - 1, abs=1e-6)
    nt["dataTimeStamp"] = pva.PvTimeStamp(0, 0)
    raw = decode(nt)
    assert raw is not None
    assert raw.attributes == {}
    assert raw.time == pytest.approx(TIME, abs=1e-6)


def test_built_arrays_have_every_field_that_viewers_want() -> None:
    phase = np.linspace(-3, 3, 60, dtype=np.float32).reshape(5, 12)
    nt = build(phase, 9, TIME, {"Model": "m1"}, descriptor="stitched phase", units="rad", limits=(-3, 3))
    got = nt.toDict()
    assert np.array_equal(nt["value"][0]["floatValue"], phase.ravel())
    assert got["dimension"] == [
        {"size": 12, "offset": 0, "fullSize": 12, "binning": 1, "reverse": False},
        {"size": 5, "offset": 0, "fullSize": 5, "binning": 1, "reverse": False},
    ]
    assert (got["uniqueId"], got["compressedSize"], got["uncompressedSize"]) == (9, 240, 240)
    assert got["timeStamp"] == got["dataTimeStamp"]
    assert got["timeStamp"]["secondsPastEpoch"] == int(TIME)
    assert got["descriptor"] == "stitched phase"
    assert (got["display"]["limitLow"], got["display"]["limitHigh"], got["display"]["units"]) == (-3, 3, "rad")
    assert nt["codec"]["parameters"][0] == {"value": 9}
    names = [attribute["name"] for attribute in nt["attribute"]]
    assert names == ["ColorMode", "Model"]
    assert nt["attribute"][0]["value"][0] == {"value": 0}
    assert str(nt).startswith("epics:nt/NTNDArray:1.0")


def test_compressed_arrays_say_how() -> None:
    encoded = encode(COUNTS, "lz4")
    nt = build(encoded, 1, TIME)
    assert nt["codec"] == {"name": "lz4", "parameters": ({"value": 6}, {"value": pva.INT})}
    assert nt["compressedSize"] == len(encoded.payload)
    assert nt["uncompressedSize"] == COUNTS.nbytes
    assert nt.getSelectedUnionFieldName("value") == "ubyteValue"


def test_arrays_built_one_after_the_other_are_independent() -> None:
    first = build(COUNTS, 1, TIME, {"x": 1.0})
    build(COUNTS + 1, 2, TIME + 1, {"x": 2.0})
    raw = decode(first, {"x"})
    assert raw is not None
    assert (raw.raw_id, raw.attributes, raw.time) == (1, {"x": 1.0}, pytest.approx(TIME, abs=1e-6))
    assert np.array_equal(raw.array, COUNTS)


def test_views_are_sent_as_they_look() -> None:
    view = COUNTS[::-1, ::2]
    raw = decode(build(view, 1, TIME))
    assert raw is not None
    assert np.array_equal(raw.array, view)


def test_the_first_update_of_a_channel_is_no_frame() -> None:
    assert decode(pva.NtNdArray()) is None


# The type code of compressed arrays


def compressed(dtype: str, code: Any, size: int | None = None) -> tuple[pva.PvObject, NDArray[Any]]:
    array = COUNTS.clip(0, 100).astype(dtype)
    nt = build(array, 1, TIME, codec="zlib")
    nt["codec.parameters"] = code
    if size is not None:
        nt["uncompressedSize"] = size
    return nt, array


def pva_byte(code: int) -> pva.PvByte:
    return pva.PvByte(chr(code))  # pvapy has bytes as characters


@pytest.mark.parametrize("kind", [pva.PvInt, pva.PvLong, pva.PvShort, pva.PvUInt, pva.PvULong, pva.PvUByte, pva_byte])
@pytest.mark.parametrize("dtype", INTEGERS)
def test_any_kind_of_integer_as_type_code(dtype: str, kind: Any) -> None:
    nt, array = compressed(dtype, kind(SCALAR_TYPE[dtype]))
    raw = decode(nt)
    assert raw is not None
    # 1 as a long is an NDDataType, uint8: who sends a ScalarType as a long sends int8 in byteValue
    unsigned = dtype == "int8" and kind is pva.PvLong
    assert raw.array.dtype == ("uint8" if unsigned else dtype)
    assert np.array_equal(raw.array, array)


@pytest.mark.parametrize("dtype", INTEGERS)
def test_the_nd_data_type_in_its_place(dtype: str) -> None:
    """Told apart by the item size; the two codes for one-byte types overlap, where the values agree."""
    nt, array = compressed(dtype, pva.PvInt(ND_DATA_TYPE[dtype]))
    raw = decode(nt)
    assert raw is not None
    assert raw.array.dtype.itemsize == array.dtype.itemsize
    assert np.array_equal(raw.array, array)


def test_a_size_that_was_left_out() -> None:
    nt, array = compressed("uint16", pva.PvInt(6), size=0)
    raw = decode(nt)
    assert raw is not None
    assert np.array_equal(raw.array, array)


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_no_type_code_where_the_size_leaves_no_doubt(dtype: str) -> None:
    nt, array = compressed(dtype, pva.PvString("unknown"))
    raw = decode(nt)
    assert raw is not None
    assert raw.array.dtype == dtype
    assert np.array_equal(raw.array, array)


def test_no_type_code_where_four_bytes_may_be_floats() -> None:
    nt, _ = compressed("uint32", pva.PvString("unknown"))
    assert "4 bytes" in str(refused(nt, DropCause.TYPE))


@pytest.mark.parametrize("code", [9, 11, 77, -1])
def test_a_type_code_that_does_not_go_with_the_size(code: int) -> None:
    nt, _ = compressed("uint16", pva.PvInt(code))
    refused(nt, DropCause.TYPE)


def test_a_payload_longer_than_it_says() -> None:
    payload = compress(COUNTS, "lz4")
    nt = build(Encoded(payload + bytes(500), "lz4", COUNTS.shape, COUNTS.dtype), 1, TIME)
    nt["compressedSize"] = len(payload)
    raw = decode(nt)
    assert raw is not None
    assert np.array_equal(raw.array, COUNTS)


# What is wrong


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("codec", ["", "lz4"])
def test_floats_are_no_counts(dtype: str, codec: str) -> None:
    error = refused(build(COUNTS.astype(dtype), 12, TIME, codec=codec), DropCause.TYPE)
    assert dtype in str(error)
    assert "frame 12" in str(error)


@pytest.mark.parametrize("sizes", [(64, 47), (64,), (64, 48, 2), (0, 48), (-64, -48), (64, 48, 3, 1)])
@pytest.mark.parametrize("codec", ["", "bslz4"])
def test_dimensions_that_do_not_fit(sizes: tuple[int, ...], codec: str) -> None:
    nt = build(COUNTS, 1, TIME, codec=codec)
    nt["dimension"] = dimensions(*sizes)
    cause = DropCause.SHAPE
    with pytest.raises(FrameError) as caught:
        decode(nt)
    assert caught.value.cause in (cause, DropCause.TYPE if codec else cause)


def test_a_third_dimension_of_one_is_let_through() -> None:
    nt = build(COUNTS, 1, TIME)
    nt["dimension"] = dimensions(64, 48, 1)
    raw = decode(nt)
    assert raw is not None
    assert np.array_equal(raw.array, COUNTS)


def test_dimensions_without_an_array_and_an_array_without_dimensions() -> None:
    nt = pva.NtNdArray()
    nt["dimension"] = dimensions(64, 48)
    refused(nt, DropCause.SHAPE)
    nt = build(COUNTS, 1, TIME)
    nt["dimension"] = []
    refused(nt, DropCause.SHAPE)


def test_codecs_that_are_unknown_or_lie() -> None:
    nt = build(COUNTS, 1, TIME)
    nt["codec.name"] = "pvapyc"
    refused(nt, DropCause.CODEC)
    nt = build(COUNTS.astype(np.uint8), 1, TIME)
    nt["codec.name"] = "lz4"
    refused(nt, DropCause.CODEC)
    encoded = encode(COUNTS, "lz4")
    refused(build(encoded._replace(payload=encoded.payload[:-9]), 1, TIME), DropCause.CODEC)


@pytest.mark.parametrize(
    "other",
    [
        pva.PvInt(3),
        pva.PvObject({"value": [pva.USHORT]}),
        pva.PvObject({"uniqueId": pva.STRING, "dimension": [pva.INT], "value": [pva.INT]}),
        pva.PvObject({"uniqueId": pva.INT, "dimension": [{"length": pva.INT}], "value": pva.INT}),
    ],
)
def test_a_channel_that_is_no_ntndarray(other: pva.PvObject) -> None:
    assert "NTNDArray" in str(refused(other, DropCause.TYPE))


def test_errors_survive_pickling_with_their_cause() -> None:
    error = refused(build(COUNTS.astype(np.float32), 12, TIME), DropCause.TYPE)
    assert pickle.loads(pickle.dumps(error)).cause is DropCause.TYPE
