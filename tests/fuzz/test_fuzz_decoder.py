"""Anything that a stream may send: an array or a counted cause, never more memory than it deserves."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable

import numpy as np
import pytest
from folders import FUZZ_FOUND as FOUND
from fuzz import codec, ntndarray
from fuzz_inputs import damaged
from hypothesis import given, settings

from ptychostream.errors import DropCause, FrameError
from ptychostream.frames.codecs import CODECS, MAX_FRAME_BYTES, compress, decompress

TARGETS = {"codec": codec, "ntndarray": ntndarray}


@pytest.mark.slow
@pytest.mark.parametrize("target", TARGETS)
def test_damaged_input_is_an_array_or_a_counted_cause(target: str) -> None:
    check: Callable[[bytes], None] = TARGETS[target].check

    @given(damaged(list(TARGETS[target].seeds())))
    @settings(max_examples=400, deadline=None)
    def run(data: bytes) -> None:
        check(data)

    run()


@pytest.mark.parametrize("target", TARGETS)
def test_every_seed_is_sound_and_what_fuzzing_found_stays_found(target: str) -> None:
    for data in [*TARGETS[target].seeds(), *(path.read_bytes() for path in (FOUND / target).glob("*"))]:
        TARGETS[target].check(data)


def test_the_seeds_of_whole_frames_are_decoded_by_both_libraries() -> None:
    for data in list(ntndarray.seeds())[1:]:
        frames = ntndarray.decode_both(data)
        assert [frame is not None and frame.array.shape for frame in frames] == [(8, 16), (8, 16)]


@pytest.mark.parametrize("codec_name", CODECS)
@pytest.mark.parametrize("shape", [(1 << 20, 1 << 20), (1 << 31, 1 << 31), (8192, 16384)])
def test_a_hundred_bytes_that_announce_a_huge_frame_allocate_nothing(codec_name: str, shape: tuple[int, int]) -> None:
    size = shape[0] * shape[1] * 2
    # With the headers of the formats that have one saying the same as the frame, as far as they can.
    header = {
        "bslz4": min(size, (1 << 64) - 1).to_bytes(8, "big") + (16).to_bytes(4, "big"),
        "lz4hdf5": min(size, (1 << 64) - 1).to_bytes(8, "big") + (1).to_bytes(4, "big"),
    }.get(codec_name, b"")
    payload = header + bytes(100 - len(header))
    tracemalloc.start()
    try:
        with pytest.raises(FrameError) as caught:
            decompress(payload, codec_name, shape, "u2")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert caught.value.cause is DropCause.CODEC
    assert peak < 1 << 20
    assert size <= MAX_FRAME_BYTES or "larger than" in str(caught.value) or codec_name == ""


def test_an_lz4_payload_at_its_highest_ratio_is_not_refused() -> None:
    zeros = np.zeros((1024, 1024), np.uint16)
    for name in ("lz4", "bslz4", "lz4hdf5"):
        assert np.array_equal(decompress(compress(zeros, name), name, zeros.shape, zeros.dtype), zeros)
