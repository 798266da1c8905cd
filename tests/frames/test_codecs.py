"""Codecs: round trips, payloads of independent encoders, and hostile ones."""

from __future__ import annotations

import struct
import subprocess
import sys
import tracemalloc
from io import BytesIO
from typing import Any

import h5py
import hdf5plugin
import lz4.block
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from PIL import Image

from ptychostream.errors import DropCause, FrameError
from ptychostream.frames import blosc_frame
from ptychostream.frames.codecs import CODECS, LOSSY, compress, decompress, is_lz4_chunk
from ptychostream.scans.hdf5_chunks import as_chunk

INTEGERS = ["int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64"]
LOSSLESS = [name for name in CODECS if name not in LOSSY]


def pattern(dtype: str, shape: tuple[int, int] = (128, 128)) -> NDArray[Any]:
    rng = np.random.default_rng(5)
    return rng.poisson(np.exp(rng.normal(1, 1.5, shape))).clip(0, np.iinfo(dtype).max).astype(dtype)


def refused(payload: bytes, codec: str, shape: tuple[int, ...] = (128, 128), dtype: str = "uint16") -> FrameError:
    with pytest.raises(FrameError) as caught:
        decompress(payload, codec, shape, dtype)
    assert caught.value.cause is DropCause.CODEC
    return caught.value


@pytest.mark.slow
@pytest.mark.parametrize("codec", LOSSLESS)
@settings(deadline=None)
@given(
    array=st.sampled_from(INTEGERS).flatmap(
        lambda dtype: hnp.arrays(dtype, hnp.array_shapes(min_dims=2, max_dims=2, max_side=70))
    )
)
def test_every_codec_gives_back_every_integer_type(codec: str, array: NDArray[Any]) -> None:
    back = decompress(compress(array, codec), codec, array.shape, array.dtype)
    assert back.dtype == array.dtype
    assert np.array_equal(back, array)


@pytest.mark.parametrize("dtype", INTEGERS)
@pytest.mark.parametrize("codec", LOSSLESS)
def test_frames_of_several_blocks(codec: str, dtype: str) -> None:
    array = pattern(dtype, (131, 127))
    payload = compress(array, codec)
    assert np.array_equal(decompress(payload, codec, array.shape, dtype), array)
    assert np.array_equal(decompress(np.frombuffer(payload, np.uint8), codec, array.shape, dtype), array)
    if codec:
        assert len(payload) < array.nbytes


def test_arrays_that_are_not_contiguous() -> None:
    array = pattern("uint16")[::2, ::-3]
    assert np.array_equal(decompress(compress(array, "bslz4"), "bslz4", array.shape, "uint16"), array)


# Payloads that HDF5's own filters wrote

FILTERS = {
    "bslz4": hdf5plugin.Bitshuffle(),
    "lz4hdf5": hdf5plugin.LZ4(),
    "blosc": hdf5plugin.Blosc(cname="lz4"),
    "zlib": {"compression": "gzip"},
}


def hdf5_chunk(array: NDArray[Any], options: Any) -> bytes:
    with h5py.File(BytesIO(), "w") as file:
        dataset = file.create_dataset("data", data=array, chunks=array.shape, **options)
        return bytes(dataset.id.read_direct_chunk((0, 0))[1])


@pytest.mark.parametrize("dtype", INTEGERS)
@pytest.mark.parametrize("codec", FILTERS)
def test_payloads_of_the_hdf5_filters(codec: str, dtype: str) -> None:
    array = pattern(dtype, (131, 127))
    assert np.array_equal(decompress(hdf5_chunk(array, FILTERS[codec]), codec, array.shape, dtype), array)


@pytest.mark.parametrize("dtype", INTEGERS)
def test_bslz4_is_the_hdf5_filters_without_its_header(dtype: str) -> None:
    array = pattern(dtype, (131, 127))
    chunk = hdf5_chunk(array, FILTERS["bslz4"])
    assert np.array_equal(decompress(chunk[12:], "bslz4", array.shape, dtype), array)


def test_bslz4_of_too_few_elements_for_a_block() -> None:
    array = np.arange(6, dtype=np.uint16).reshape(2, 3)
    chunk = hdf5_chunk(array, FILTERS["bslz4"])
    assert np.array_equal(decompress(chunk, "bslz4", array.shape, "uint16"), array)
    assert np.array_equal(decompress(chunk[12:], "bslz4", array.shape, "uint16"), array)
    refused(chunk[:-1], "bslz4", array.shape)


def test_bslz4_of_another_block_size_says_so_in_its_header() -> None:
    array = pattern("uint16")
    chunk = hdf5_chunk(array, hdf5plugin.Bitshuffle(nelems=1024))
    assert np.array_equal(decompress(chunk, "bslz4", array.shape, "uint16"), array)


def test_lz4hdf5_in_small_blocks_with_one_stored_as_it_is() -> None:
    noise = np.random.default_rng(6).integers(0, 1 << 16, (64, 64)).astype(np.uint16)
    noise[32:] = 3
    chunk = hdf5_chunk(noise, hdf5plugin.LZ4(nbytes=2048))
    assert len(chunk) > 4096
    assert np.array_equal(decompress(chunk, "lz4hdf5", noise.shape, "uint16"), noise)


@pytest.mark.parametrize("name", ["blosclz", "lz4", "lz4hc", "snappy", "zlib", "zstd"])
@pytest.mark.parametrize("shuffle", [0, 1, 2])
def test_blosc_whatever_compressor_it_names(name: str, shuffle: int) -> None:
    array = np.sort(pattern("uint16"))  # a chunk that does not shrink is stored without the filter
    chunk = hdf5_chunk(array, hdf5plugin.Blosc(cname=name, shuffle=shuffle))
    assert np.array_equal(decompress(chunk, "blosc", array.shape, "uint16"), array)


@pytest.mark.parametrize("name", ["blosclz", "lz4", "snappy", "zlib", "zstd"])
def test_an_error_of_blosc_names_the_compressor(name: str) -> None:
    array = np.tile(np.arange(256, dtype=np.uint16), 64).reshape(128, 128)
    chunk = bytearray(hdf5_chunk(array, hdf5plugin.Blosc(cname=name)))
    chunk[16:] = b"\xff" * (len(chunk) - 16)
    assert f"blosc payload: compressor {name} cannot decode it" in str(refused(bytes(chunk), "blosc"))
    chunk[2] = (chunk[2] & 0x1F) | (6 << 5)
    assert "compressor number 6 is unknown" in str(refused(bytes(chunk), "blosc"))


def test_snappy_that_is_nowhere_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    array = np.sort(pattern("uint16"))  # it shrinks: a chunk that does not is stored without the filter
    chunk = hdf5_chunk(array, hdf5plugin.Blosc(cname="snappy"))
    monkeypatch.setattr(blosc_frame, "_library_with_snappy", lambda: None)
    assert "compressor snappy is in none of the libraries" in str(refused(chunk, "blosc"))


@pytest.mark.parametrize("codec", ["lossless noise", "zeros", "counts"])
def test_a_bare_lz4_block_never_looks_like_a_chunk_of_hdf5(codec: str) -> None:
    arrays = {
        "lossless noise": np.random.default_rng(7).integers(0, 256, (40, 40)).astype(np.uint8),
        "zeros": np.zeros((64, 64), np.uint8),
        "counts": pattern("uint16"),
    }
    array = arrays[codec]
    assert not is_lz4_chunk(memoryview(compress(array, "lz4")))
    for options in (hdf5plugin.LZ4(), hdf5plugin.LZ4(nbytes=512)):
        chunk = hdf5_chunk(array, options)
        assert is_lz4_chunk(memoryview(chunk))
        assert np.array_equal(decompress(chunk, "lz4", array.shape, array.dtype), array)
        refused(chunk[:-1], "lz4", array.shape, array.dtype.name)
        stored = as_chunk(np.frombuffer(chunk, np.uint8), "lz4", array.shape, array.dtype, "lz4", check=True)
        assert stored == chunk


# JPEG


@pytest.mark.parametrize("dtype", ["uint8", "int8"])
def test_jpeg_is_close(dtype: str) -> None:
    rows, columns = np.mgrid[0:64, 0:96]
    smooth = (60 + 50 * np.sin(rows / 9) * np.cos(columns / 11)).astype(dtype)
    back = decompress(compress(smooth, "jpeg"), "jpeg", smooth.shape, dtype)
    assert back.dtype == smooth.dtype
    assert np.abs(back.astype(int) - smooth).max() <= 6


def test_jpeg_holds_eight_grey_bits_only() -> None:
    with pytest.raises(FrameError, match="uint16"):
        compress(pattern("uint16"), "jpeg")
    payload = compress(pattern("uint8"), "jpeg")
    refused(payload, "jpeg", (128, 64), "uint16")
    refused(payload, "jpeg", (128, 127), "uint8")
    colour = BytesIO()
    Image.fromarray(np.zeros((16, 16, 3), np.uint8)).save(colour, "JPEG")
    refused(colour.getvalue(), "jpeg", (16, 16), "uint8")
    png = BytesIO()
    Image.fromarray(np.zeros((16, 16), np.uint8)).save(png, "PNG")
    refused(png.getvalue(), "jpeg", (16, 16), "uint8")


# What is wrong


def test_an_unknown_codec_is_named_with_what_is_known() -> None:
    error = refused(b"", "snappy")
    assert "snappy" in str(error)
    assert "bslz4" in error.remedy
    with pytest.raises(FrameError, match="pvapyc"):
        compress(pattern("uint8"), "pvapyc")


@pytest.mark.parametrize("codec", CODECS)
def test_truncated_anywhere(codec: str) -> None:
    array = pattern("uint8")
    payload = compress(array, codec)
    for end in {0, 1, 3, 4, 11, 12, 16, len(payload) // 2, len(payload) - 5, len(payload) - 1}:
        refused(payload[:end], codec, array.shape, "uint8")


@pytest.mark.parametrize("codec", LOSSLESS)
def test_another_size_than_announced(codec: str) -> None:
    payload = compress(pattern("uint16"), codec)
    refused(payload, codec, (128, 127))
    refused(payload, codec, (128, 129))
    refused(payload, codec, (128, 128), "uint32")


@pytest.mark.parametrize("codec", LOSSLESS)
def test_more_bytes_than_there_should_be(codec: str) -> None:
    refused(compress(pattern("uint16"), codec) + b"\0\1\2", codec)


@pytest.mark.slow
@pytest.mark.parametrize("codec", ["lz4", "bslz4", "lz4hdf5", "blosc", "zlib"])
def test_bombs_are_refused_before_they_go_off(codec: str) -> None:
    bomb = compress(np.zeros((4096, 4096), np.uint16), codec)
    assert len(bomb) < 200_000
    tracemalloc.start()
    try:
        refused(bomb, codec)
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


def test_a_frame_beyond_all_bounds_is_not_allocated() -> None:
    assert "MiB" in str(refused(b"\0" * 64, "lz4", (1 << 30, 1 << 30)))


def test_headers_that_lie() -> None:
    array = pattern("uint16")
    size = array.nbytes
    block = lz4.block.compress(array.tobytes(), store_size=False)
    for header in (struct.pack(">QI", size + 1, size), struct.pack(">QI", size, 0), struct.pack(">QI", size, 1)):
        refused(header + struct.pack(">I", len(block)) + block, "lz4hdf5")
    blocks = compress(array, "bslz4")
    for header in (struct.pack(">QI", size - 2, 8192), struct.pack(">QI", size, 24), struct.pack(">QI", size, 1 << 31)):
        refused(header + blocks, "bslz4")
    huge = bytearray(blocks)
    huge[0:4] = struct.pack(">I", 0xFFFFFFF0)
    refused(bytes(huge), "bslz4")
    frame = compress(array, "blosc")
    for at in (0, 4, 8, 12):
        lie = bytearray(frame)
        lie[at : at + 4] = struct.pack("<I", 0x7FFFFFF0)
        refused(bytes(lie), "blosc")


FUZZ = """
import sys
import numpy as np
from ptychostream.frames.codecs import CODECS, compress, decompress
from ptychostream.errors import FrameError
rng = np.random.default_rng(int(sys.argv[1]))
array = rng.poisson(2, (96, 90)).astype(np.uint8)
refused = 0
for codec in CODECS:
    good = np.frombuffer(compress(array, codec), np.uint8)
    for _ in range(400):
        bad = good.copy()
        bad[rng.integers(0, len(bad), rng.integers(1, 20))] = rng.integers(0, 256)
        if rng.random() < 0.5:
            bad = bad[: rng.integers(0, len(bad))]
        if rng.random() < 0.1:
            bad = rng.integers(0, 256, 200).astype(np.uint8)
        try:
            decoded = decompress(bad, codec, array.shape, array.dtype)
            assert decoded.shape == array.shape and decoded.dtype == array.dtype
        except FrameError:
            refused += 1
print("refused", refused)
"""


@pytest.mark.slow
def test_garbage_is_an_error_and_not_a_crash() -> None:
    """In a child process, for what native code does with garbage could take this one down."""
    child = subprocess.run([sys.executable, "-c", FUZZ, "1"], capture_output=True, text=True, timeout=100, check=False)
    assert child.returncode == 0, child.stderr
    assert int(child.stdout.split()[1]) > 1400
