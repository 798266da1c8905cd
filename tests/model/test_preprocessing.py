"""The compiled pass against the same steps written in numpy."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from ptychostream.errors import DropCause, FrameError, GeometryError
from ptychostream.model.contract import PackedArray, Preprocessing
from ptychostream.model.preprocessing import Preprocessor

DTYPES = ["u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8"]


def reference(counts: NDArray[np.integer], spec: Preprocessing) -> NDArray[np.float32]:
    clean = counts.copy()
    clean[counts < 0] = 0
    if spec.saturated_is_bad:
        marks = 1 if counts.dtype.itemsize < 4 else 2
        clean[counts > np.iinfo(counts.dtype).max - marks] = 0
    if spec.saturation is not None:
        clean[counts.astype(object) >= spec.saturation] = 0
    if spec.hot_threshold is not None:
        # As Python integers: a threshold may lie outside the count type.
        clean[counts.astype(object) > spec.hot_threshold] = 0
    if spec.bad_pixels is not None:
        clean[spec.bad_pixels.unpack()] = 0
    if spec.crop is not None:
        row, column, height, width = spec.crop
        clean = clean[row : row + height, column : column + width]
    height, width = clean.shape
    # A long double holds these sums exactly, so that only the last step rounds.
    binned = clean.astype(np.longdouble).reshape(height // spec.bin, spec.bin, width // spec.bin, spec.bin).sum((1, 3))
    turned = np.rot90(binned, spec.rot90)
    turned = np.fliplr(turned) if spec.flip_lr else turned
    turned = np.flipud(turned) if spec.flip_ud else turned
    return (np.fft.fftshift(turned) if spec.fftshift else turned).astype(np.float32)


@st.composite
def cases(draw: st.DrawFn) -> tuple[NDArray[np.integer], Preprocessing]:
    side = draw(st.integers(1, 4))
    height, width = side * draw(st.integers(1, 5)), side * draw(st.integers(1, 5))
    row, column = draw(st.integers(0, 3)), draw(st.integers(0, 3))
    shape = (row + height + draw(st.integers(0, 3)), column + width + draw(st.integers(0, 3)))
    crop = (row, column, height, width)
    cropped = draw(st.booleans()) or shape[0] % side or shape[1] % side
    dtype = np.dtype(draw(st.sampled_from(DTYPES)))
    info = np.iinfo(dtype)
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    # Few and small values besides the marks at the ends of the type; below 2⁵³, where sums are exact.
    high = info.max - 1 if info.max < 2**40 else 2**50 + 1
    counts = rng.choice(np.array([0, 1, 2, 3, 7, 100, info.max, high], dtype), shape)
    if info.min < 0:
        counts[rng.random(shape) < 0.2] = rng.choice(np.array([-1, -2, info.min], dtype))
    mask = PackedArray.pack(rng.random(shape) < 0.2) if draw(st.booleans()) else None
    spec = Preprocessing(
        crop=crop if cropped else None,
        bin=side,
        rot90=draw(st.integers(0, 3)),
        flip_lr=draw(st.booleans()),
        flip_ud=draw(st.booleans()),
        fftshift=draw(st.booleans()),
        saturated_is_bad=draw(st.booleans()) or info.max > 2**40,
        hot_threshold=draw(st.sampled_from([None, 0, 2, 7, 10**6, 10**30])),
        saturation=draw(st.sampled_from([None, 1, 3, 100, 10**30])),
        bad_pixels=mask,
    )
    return counts, spec


@pytest.mark.slow
@settings(max_examples=200, deadline=None)
@given(cases())
def test_agrees_with_numpy_for_every_option(case: tuple[NDArray[np.integer], Preprocessing]) -> None:
    counts, spec = case
    expected = reference(counts, spec)
    preprocessor = Preprocessor(spec, counts.shape, counts.dtype)
    out = np.full(preprocessor.output_shape, np.nan, np.float32)
    untouched = counts.copy()
    total = preprocessor.apply(counts, out)
    np.testing.assert_array_equal(out, expected)
    assert total == pytest.approx(expected.sum(dtype=np.float64), rel=1e-5)
    np.testing.assert_array_equal(counts, untouched)
    together = np.full((3, *preprocessor.output_shape), np.nan, np.float32)
    preprocessor.apply_all([counts, np.zeros_like(counts), np.asfortranarray(counts)], together)
    np.testing.assert_array_equal(together, [expected, np.zeros_like(expected), expected])


@pytest.mark.parametrize("dtype", DTYPES)
def test_saturated_is_each_types_own_maximum(dtype: str) -> None:
    largest = np.iinfo(dtype).max
    counts = np.array([[largest, largest - 1], [1, 0]], dtype)
    out = np.empty((2, 2), np.float32)
    Preprocessor(Preprocessing(), (2, 2), dtype).apply(counts, out)
    below = largest - 1 if np.dtype(dtype).itemsize < 4 else 0  # nothing counts to 2³¹
    np.testing.assert_array_equal(out, np.array([[0, below], [1, 0]], np.float32))


def test_frames_in_any_memory_layout_are_read_alike() -> None:
    counts = np.arange(48, dtype="<u4").reshape(6, 8)
    preprocessor = Preprocessor(Preprocessing(fftshift=True), (6, 8), "u4")
    out = np.empty((6, 8), np.float32)
    preprocessor.apply(counts, out)
    unaligned = np.frombuffer(b"\0" + counts.tobytes(), "<u4", offset=1).reshape(6, 8)
    assert not unaligned.flags.aligned
    assert not unaligned.flags.writeable
    wide = np.zeros((6, 16), "<u4")
    wide[:, ::2] = counts
    for other in (unaligned, counts.astype(">u4"), np.asfortranarray(counts), wide[:, ::2]):
        again = np.full((6, 8), np.nan, np.float32)
        preprocessor.apply(other, again)
        np.testing.assert_array_equal(again, out)


@pytest.mark.parametrize(
    ("spec", "match"),
    [
        (Preprocessing(crop=(0, 1, 8, 8)), "crop"),
        (Preprocessing(crop=(-1, 0, 4, 4)), "crop"),
        (Preprocessing(crop=(0, 0, 0, 4)), "crop"),
        (Preprocessing(bin=3), "bin 3"),
        (Preprocessing(bad_pixels=PackedArray.pack(np.zeros((4, 4), np.bool_))), "^[^(]*frames of 8 × 8, where"),
    ],
)
def test_a_spec_that_does_not_fit_is_refused_at_once(spec: Preprocessing, match: str) -> None:
    with pytest.raises(GeometryError, match=match):
        Preprocessor(spec, (8, 8), np.uint16)


def test_a_frame_that_is_not_the_expected_one_is_refused_with_its_cause() -> None:
    preprocessor = Preprocessor(Preprocessing(), (8, 8), np.uint16)
    out = np.zeros((8, 8), np.float32)
    with pytest.raises(FrameError) as shape:
        preprocessor.apply(np.zeros((8, 9), np.uint16), out)
    assert shape.value.cause is DropCause.SHAPE
    with pytest.raises(FrameError) as kind:
        preprocessor.apply(np.zeros((8, 8), np.uint32), out)
    assert kind.value.cause is DropCause.TYPE
    with pytest.raises(FrameError) as floats:
        Preprocessor(Preprocessing(), (8, 8), np.float32)
    assert floats.value.cause is DropCause.TYPE
    with pytest.raises(ValueError, match="out of"):
        preprocessor.apply(np.zeros((8, 8), np.uint16), np.zeros((4, 4), np.float32))
    with pytest.raises(ValueError, match="for 1 results"):
        preprocessor.apply_all([np.zeros((8, 8), np.uint16)], np.zeros((2, 8, 8), np.float32))
