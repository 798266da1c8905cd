"""Images on their way to a browser: what arrives is what was served, and only what changed is sent."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from numpy.typing import NDArray
from web_helpers import Browser, image

from ptychostream.errors import ConfigError, StreamError
from ptychostream.web.images.draw import colour_maps, png_of
from ptychostream.web.images.image_feed import LARGEST_SENT, ImageFeed
from ptychostream.web.images.levels import NOTHING, TOP, codes_of
from ptychostream.web.images.messages import pack, read_image_message, unpack
from ptychostream.web.images.picture import Picture, picture_of
from ptychostream.web.images.tiles import changed_tiles, cut, tile_grid

RNG = np.random.default_rng(3)


def picture(array: NDArray[Any], **attributes: float | str) -> Picture:
    found = picture_of(image(array, **attributes), "Phase")
    assert found is not None
    return found


def received(feed: ImageFeed, browser: Browser, base: int) -> NDArray[np.float64]:
    """The image that a browser has after the message from `base`."""
    message, _ = feed.message(base)
    header, packed = read_image_message(message)
    browser.images["Phase"] = browser._decode(header, packed)
    browser.headers["Phase"] = header
    return browser.images["Phase"]


@pytest.mark.slow
@given(arrays(np.uint16, st.integers(0, 300)))
def test_codes_survive_packing(codes: NDArray[np.uint16]) -> None:
    assert np.array_equal(unpack(pack(codes), len(codes)), codes)


@pytest.mark.slow
@given(
    arrays(
        np.float32,
        array_shapes(min_dims=2, max_dims=2, max_side=20),
        elements=st.floats(width=32, allow_nan=True, allow_infinity=True),
    )
)
def test_a_code_is_within_half_a_step_of_the_pixel(array: NDArray[np.float32]) -> None:
    codes, levels, _ = codes_of(array, None, None)
    held = np.isfinite(array)
    assert np.array_equal(codes == NOTHING, ~held)
    back = levels.offset + levels.step * codes.astype(np.float64)
    room = 0.51 * levels.step + 1e-6 * np.abs(array[held].astype(np.float64))
    assert (np.abs(back[held] - array[held].astype(np.float64)) <= room).all()


@pytest.mark.parametrize("kind", ["u1", "i1", "u2", "i2", "u4", "i4", "i8", "u8"])
def test_integers_in_a_range_of_16_bits_are_exact(kind: str) -> None:
    low = -100 if kind[0] == "i" else 0
    array = RNG.integers(low, 120, (9, 7)).astype(kind)
    codes, levels, extremes = codes_of(array, None, None)
    assert np.array_equal(levels.offset + levels.step * codes.astype(np.float64), array)
    assert extremes == (array.min(), array.max())


def test_the_scale_stays_while_the_range_grows_a_little() -> None:
    array = RNG.normal(size=(20, 20)).astype(np.float32)
    _, first, _ = codes_of(array, None, None)
    _, second, _ = codes_of(array * np.float32(1.2), None, first)
    _, third, _ = codes_of(array * np.float32(3), None, second)
    _, fourth, _ = codes_of(array * np.float32(0.01), None, third)
    assert second == first
    assert third != first
    assert fourth.step < third.step / 10


def test_pixels_without_a_measurement_have_the_same_code_whatever_fills_them() -> None:
    array = RNG.normal(size=(20, 20)).astype(np.float32)
    for fill in (0.25, np.float32(1 / 3)):
        array[:5] = fill
        codes, _, _ = codes_of(array, float(fill), None)
        assert (codes[:5] == NOTHING).all()
        assert (codes[5:] <= TOP).all()


def test_changed_tiles_are_those_with_a_pixel_that_differs() -> None:
    before = RNG.integers(0, 9, (200, 150)).astype(np.uint16)
    after = before.copy()
    after[199, 149] += 1
    after[64, 63] += 1
    assert tile_grid(before.shape) == (4, 3)
    assert sorted(np.flatnonzero(changed_tiles(before, after))) == [3, 11]
    assert np.array_equal(cut(after, [11]), after[192:, 128:].ravel())


def test_only_what_changed_is_sent_and_the_browser_has_the_whole_image() -> None:
    feed, browser = ImageFeed("w:", "Phase"), Browser(None)  # type: ignore[arg-type]
    array = RNG.normal(size=(512, 512)).astype(np.float32)
    array[256:] = 0
    feed.take(picture(array, FillValue=0.0))
    whole, first = feed.message(0)
    assert first == 1
    step = read_image_message(whole)[0]["step"]
    got = received(feed, browser, 0)
    assert np.isnan(got[256:]).all()
    assert np.abs(got[:256] - array[:256]).max() <= 0.51 * step
    array[300:310, 100:200] = 0.5
    feed.take(picture(array, FillValue=0.0))
    part, second = feed.message(1)
    assert second == 2
    assert read_image_message(part)[0]["tiles"] == [4 * 8 + 1, 4 * 8 + 2, 4 * 8 + 3]
    assert len(part) < len(whole) / 20
    got = received(feed, browser, 1)
    assert np.abs(got[300:310, 100:200] - 0.5).max() <= 0.51 * step
    assert feed.message(1)[0] is part, "another browser gets the same bytes"


def test_a_browser_that_missed_images_gets_all_that_has_changed_since() -> None:
    feed, slow, fast = ImageFeed("w:", "Phase"), Browser(None), Browser(None)  # type: ignore[arg-type]
    array = RNG.normal(size=(200, 200)).astype(np.float32)
    feed.take(picture(array))
    received(feed, slow, 0)
    received(feed, fast, 0)
    for number in range(1, 6):
        array[40 * number - 40 : 40 * number, :30] = 0.1 * number
        feed.take(picture(array))
        received(feed, fast, number)
    assert np.array_equal(received(feed, slow, 1), fast.images["Phase"])


def test_another_size_and_an_unknown_base_give_the_whole_image() -> None:
    feed = ImageFeed("w:", "Phase")
    for side in (64, 100, 30):
        feed.take(picture(RNG.normal(size=(side, side)).astype(np.float32)))
        for base in (feed.version - 1, 0, 77, -1):
            header, _ = read_image_message(feed.message(base)[0])
            assert (header["tiles"], header["width"]) == (None, side)


def test_a_huge_image_is_thinned_for_the_browser_and_stays_whole_for_files() -> None:
    feed = ImageFeed("w:", "Phase")
    array = np.broadcast_to(np.arange(5000, dtype=np.float32), (5000, 5000))
    feed.take(Picture(array, 1, 0.0, {}, ""))
    header, _ = read_image_message(feed.message(0)[0])
    assert header["width"] * header["height"] <= LARGEST_SENT
    assert header["reduced"] == 3
    assert feed.picture is not None
    assert feed.picture.array.shape == (5000, 5000)


def test_an_image_that_has_not_changed_is_sent_without_pixels() -> None:
    feed = ImageFeed("w:", "Phase")
    array = RNG.normal(size=(512, 512)).astype(np.float32)
    feed.take(picture(array))
    feed.take(picture(array))
    message, _ = feed.message(1)
    header, packed = read_image_message(message)
    assert (header["tiles"], packed) == ([], b"")


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda value: value.__setitem__("dimension", [{"size": 5}]), "dimensions 5, where an image has two"),
        (
            lambda value: value.__setitem__("dimension", [{"size": 3}, {"size": 4}, {"size": 2}]),
            "dimensions 2 × 4 × 3, where an image has two",
        ),
        (lambda value: value.__setitem__("dimension", [{"size": 4}, {"size": 4}]), "12 values, where the dimensions"),
        (lambda value: value.__setitem__("dimension", [{"size": 1 << 20}, {"size": 1 << 20}]), "pixels"),
        (lambda value: value.__setitem__("dimension", [{"size": -3}, {"size": -4}]), "where an image has two"),
        (lambda value: value.__setitem__("codec.name", "lz77"), "lz77"),
    ],
)
def test_what_is_no_image_says_why(change: Any, text: str) -> None:
    value = image(np.zeros((4, 3), np.uint8))
    change(value)
    with pytest.raises(StreamError, match=text) as caught:
        picture_of(value, "other:Phase")
    assert caught.value.where == "other:Phase"
    assert caught.value.remedy


def test_a_record_that_is_no_image_says_why() -> None:
    from p4p.nt import NTScalar

    with pytest.raises(StreamError, match="not an NTNDArray"):
        picture_of(NTScalar("d").wrap(1.0), "other:Phase")


def test_hostile_attributes_are_cut() -> None:
    found = picture(np.zeros((3, 3)), Long="x" * 100_000, Bad=float("nan"), **{f"a{n}": float(n) for n in range(200)})
    assert len(str(found.attributes["Long"])) == 256
    assert "Bad" not in found.attributes
    assert len(found.attributes) <= 64


def test_png_shows_limits_as_first_and_last_colour_and_missing_pixels_transparent() -> None:
    import io

    from PIL import Image

    array = np.linspace(0, 1, 300).reshape(15, 20).astype(np.float32)
    array[0, :5] = 0.75
    shown = Picture(array, 1, time.time(), {"FillValue": 0.75}, "rad")
    drawn = np.asarray(Image.open(io.BytesIO(png_of(shown, "cividis", 0.2, 0.8, False))).convert("RGBA"))
    table = colour_maps()["cividis"]
    assert (drawn[0, :5, 3] == 0).all()
    assert (drawn[-1, -1] == [*table[255], 255]).all()
    assert (drawn[0, 6] == [*table[0], 255]).all()
    for colours, low, high in (("jet", 0, 1), ("gray", 99, 1), ("gray", -5, 50)):
        with pytest.raises(ConfigError):
            png_of(shown, colours, low, high, True)


def test_the_colour_maps_are_those_of_matplotlib() -> None:
    import matplotlib as mpl

    for name, table in colour_maps().items():
        expected = mpl.colormaps[name].resampled(256)(np.linspace(0, 1, 256))[:, :3]
        assert np.array_equal(table, (255 * expected).round().astype(np.uint8)), name
