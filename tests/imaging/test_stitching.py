"""The canvas: exact for any order and any split, right to a fraction of a pixel, and refusing what is wrong."""

from __future__ import annotations

import pickle
import threading
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import ndimage

from ptychostream.errors import DropCause, FrameError, GeometryError
from ptychostream.imaging import stitching_kernels
from ptychostream.imaging.phase_image import PhaseImage
from ptychostream.imaging.probe_weight import probe_weight
from ptychostream.imaging.stitching import Canvas

PIXEL = 11.6e-9


def donut(shape: tuple[int, int]) -> NDArray[np.float32]:
    """A weight with a hole, a soft rim and an empty border, off the centre."""
    rows, columns = np.indices(shape)
    radius = np.hypot(rows - shape[0] * 0.55, columns - shape[1] * 0.45)
    weight = np.exp(-(((radius - min(shape) / 5) / (min(shape) / 8)) ** 2))
    weight[weight < 0.05] = 0
    return weight.astype(np.float32)


def same(first: PhaseImage, second: PhaseImage) -> bool:
    return (
        first.origin_m == second.origin_m
        and first.pixel_m == second.pixel_m
        and first.phase.tobytes() == second.phase.tobytes()
        and first.weight.tobytes() == second.weight.tobytes()
        and first.phase.shape == second.phase.shape
    )


def float_reference(
    patches: NDArray[np.float32], xy_m: NDArray[np.float64], weight: NDArray[np.float32]
) -> tuple[NDArray[np.float64], NDArray[np.float64], int, int]:
    """The weighted mean in float64 with positions as they are: sums of phase·weight and weight, and pixel [0, 0]."""
    h, w = weight.shape
    columns, rows = np.floor(xy_m / PIXEL).astype(int).T
    row0, column0 = rows.min() - h // 2, columns.min() - w // 2
    total = np.zeros((2, rows.max() - rows.min() + h + 1, columns.max() - columns.min() + w + 1))
    for patch, (x, y), row, column in zip(patches, xy_m / PIXEL, rows, columns, strict=True):
        r, c = row - row0 - h // 2, column - column0 - w // 2
        for sums, values in zip(total, (patch * (weight / weight.max()), weight / weight.max()), strict=True):
            padded = np.zeros((h + 1, w + 1))
            padded[:h, :w] = values
            # order=1 with zeros outside is the bilinear spreading of each pixel over its four neighbours.
            shifted = ndimage.shift(padded, (y - row, x - column), order=1, mode="grid-constant")
            sums[r : r + h + 1, c : c + w + 1] += shifted
    return total[0], total[1], row0, column0


@st.composite
def patch_sets(draw: st.DrawFn) -> tuple[NDArray[np.float32], NDArray[np.float64], NDArray[np.float32]]:
    shape = (draw(st.integers(1, 9)), draw(st.integers(1, 9)))
    count = draw(st.integers(1, 12))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    patches = rng.uniform(-3.2, 3.2, (count, *shape)).astype(np.float32)
    reach = draw(st.sampled_from([0.0, 3.0, 60.0])) * PIXEL
    xy = rng.uniform(-reach, reach, (count, 2)) + rng.choice([0, 1e-4], 2)
    weight = rng.choice([0, 0.1, 0.7, 1.0], shape).astype(np.float32)
    weight[rng.integers(shape[0]), rng.integers(shape[1])] = 1
    return patches, xy, weight


@pytest.mark.slow
@settings(max_examples=100, deadline=None)
@given(patch_sets(), st.data())
def test_any_order_any_batches_and_any_split_give_the_same_canvas(
    case: tuple[NDArray[np.float32], NDArray[np.float64], NDArray[np.float32]], data: st.DataObject
) -> None:
    patches, xy, weight = case
    straight = Canvas(PIXEL, weight)
    for patch, (x, y) in zip(patches, xy, strict=True):
        straight.add(patch, x, y)
    workers = [Canvas(PIXEL, weight) for _ in range(data.draw(st.integers(1, 4)))]
    order = data.draw(st.permutations(range(len(patches))))
    while order:
        taken, order = order[: (size := data.draw(st.integers(1, 5)))], order[size:]
        data.draw(st.sampled_from(workers)).add_batch(patches[taken], xy[taken])
    total = Canvas.from_state(pickle.loads(pickle.dumps(workers.pop().state())), weight)
    for index in data.draw(st.permutations(range(len(workers)))):
        total.merge(workers[index])
    assert total.patches == straight.patches == len(patches)
    assert same(total.image(), straight.image())
    assert (total.state().value == straight.state().value).all()


@settings(max_examples=60, deadline=None)
@given(patch_sets())
def test_agrees_with_floating_point_within_the_quantisation(
    case: tuple[NDArray[np.float32], NDArray[np.float64], NDArray[np.float32]],
) -> None:
    patches, xy, weight = case
    # The rounding of positions and weights is known; what is under test is all the rest.
    xy = np.rint(xy / PIXEL * 64) / 64 * PIXEL
    weight = np.rint(weight * 1024) / 1024
    canvas = Canvas(PIXEL, weight)
    canvas.add_batch(patches, xy)
    image = canvas.image()
    value, total, row0, column0 = float_reference(patches, xy + 1e-6 * PIXEL, weight)
    top, left = round(image.origin_m[1] / PIXEL) - row0, round(image.origin_m[0] / PIXEL) - column0
    inner = np.s_[top : top + image.phase.shape[0], left : left + image.phase.shape[1]]
    assert total.sum() == pytest.approx(total[inner].sum(), rel=1e-4)
    np.testing.assert_allclose(image.weight, total[inner], atol=1e-5 * len(patches))
    expected = value[inner] / np.maximum(total[inner], 1e-9)
    solid = total[inner] > 0.02
    np.testing.assert_allclose(image.phase[solid], expected[solid], atol=3e-4)


def test_a_constant_phase_comes_back_everywhere() -> None:
    canvas = Canvas(PIXEL, donut((32, 24)))
    rng = np.random.default_rng(1)
    canvas.add_batch(np.full((50, 32, 24), 0.75, np.float32), rng.uniform(-1e-6, 1e-6, (50, 2)))
    image = canvas.image()
    assert (image.phase[image.weight > 0] == np.float32(0.75)).all()
    assert np.isnan(image.phase[image.weight == 0]).all()
    assert (image.weight == 0).any()


def test_sub_pixel_positions_put_the_sample_where_it_is() -> None:
    def sample(x_m: NDArray[np.float64], y_m: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.sin(2 * np.pi * x_m / (40 * PIXEL)) + 0.5 * np.cos(2 * np.pi * (y_m + 0.3 * x_m) / (50 * PIXEL))

    rng = np.random.default_rng(2)
    xy = rng.uniform(-30, 30, (200, 2)) * PIXEL + (3e-6, -5e-6)
    rows, columns = np.indices((33, 40))
    patches = np.stack([sample(x + (columns - 20) * PIXEL, y + (rows - 16) * PIXEL) for x, y in xy]).astype(np.float32)
    canvas = Canvas(PIXEL, np.ones((33, 40)))
    canvas.add_batch(patches, xy)
    image = canvas.image()
    rows, columns = np.indices(image.phase.shape)
    truth = sample(image.origin_m[0] + columns * PIXEL, image.origin_m[1] + rows * PIXEL)
    well = image.weight > 10
    # Linear interpolation of a wave of 40 pixels is off by (2π/40)²/8; half a pixel of shift would be 0.08.
    assert np.sqrt(np.mean((image.phase[well] - truth[well]) ** 2)) < 0.005


def test_a_single_patch_lies_with_its_centre_on_its_position() -> None:
    weight = np.zeros((6, 5))
    weight[3, 2] = 1
    canvas = Canvas(PIXEL, weight)
    canvas.add(np.full((6, 5), 1.5, np.float32), 10 * PIXEL, -7 * PIXEL)
    image = canvas.image()
    assert image.phase.shape == (1, 1)
    assert image.phase[0, 0] == 1.5
    assert image.weight[0, 0] == 1
    assert image.origin_m == pytest.approx((10 * PIXEL, -7 * PIXEL), abs=1e-20)


def test_an_empty_canvas_has_an_empty_image() -> None:
    image = Canvas(PIXEL, np.ones((4, 4))).image()
    assert image.phase.shape == image.weight.shape == (0, 0)


def test_a_weighted_mean() -> None:
    light, heavy = Canvas(PIXEL, np.array([[0.25, 1.0]])), Canvas(PIXEL, np.array([[1.0, 0.5]]))
    light.add(np.array([[1.0, 0.0]], np.float32), 0, 0)
    heavy.add(np.array([[2.0, 3.0]], np.float32), 0, 0)
    heavy.merge(light)  # another patch weight, as after a change of model
    np.testing.assert_allclose(heavy.image().phase, [[(0.25 * 1 + 2) / 1.25, 3 * 0.5 / 1.5]], atol=2e-5)
    np.testing.assert_allclose(heavy.image().weight, [[1.25, 1.5]])


def bad_patch(canvas: Canvas, value: float) -> Callable[[], None]:
    patches = np.zeros((3, 8, 8), np.float32)
    patches[1, 7, 0] = value
    return lambda: canvas.add_batch(patches, np.array([[0, 0], [7e-8, 0], [0, 0]]))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 40.0, -1e30])
def test_a_patch_that_is_not_finite_is_refused_and_leaves_no_trace(value: float) -> None:
    canvas = Canvas(PIXEL, donut((8, 8)))
    canvas.add(np.ones((8, 8), np.float32), 0, 0)
    before = canvas.image()
    with pytest.raises(FrameError, match="7e-08") as error:
        bad_patch(canvas, value)()
    assert error.value.cause is DropCause.ENGINE
    assert same(canvas.image(), before)
    assert canvas.patches == 1


@pytest.mark.parametrize("x_m", [np.nan, np.inf, 1.0, -1e300])
def test_a_position_beyond_the_limit_is_named_and_leaves_no_trace(x_m: float) -> None:
    canvas = Canvas(PIXEL, np.ones((8, 8)), max_pixels=10_000)
    canvas.add(np.ones((8, 8), np.float32), 0, 0)
    before = canvas.image()
    with pytest.raises(GeometryError, match=r"position \((nan|inf|1|-1e\+300), 0.001\) m"):
        canvas.add_batch(np.ones((2, 8, 8), np.float32), np.array([[0, 0], [x_m, 1e-3]]))
    assert same(canvas.image(), before)
    canvas.add(np.ones((8, 8), np.float32), 50 * PIXEL, 0)
    assert canvas.patches == 2


def test_what_fits_the_limit_is_taken_whatever_way_the_canvas_grew() -> None:
    canvas = Canvas(PIXEL, np.ones((4, 4)), max_pixels=104 * 104)
    for step in range(101):
        canvas.add(np.ones((4, 4), np.float32), step * PIXEL, -step * PIXEL)
    for corner in ((0, 0), (100, -100), (0, -100), (100, 0)):
        canvas.add(np.ones((4, 4), np.float32), corner[0] * PIXEL, corner[1] * PIXEL)
        assert canvas._held.pixels <= canvas.max_pixels
    assert canvas.image().phase.shape == (104, 104)
    with pytest.raises(GeometryError, match="105 × 104"):
        canvas.add(np.ones((4, 4), np.float32), 0, PIXEL)
    other = Canvas(PIXEL, np.ones((4, 4)))
    other.add(np.ones((4, 4), np.float32), -PIXEL, 0)
    before = canvas.image()
    with pytest.raises(GeometryError, match="104 × 105"):
        canvas.merge(other)
    assert same(canvas.image(), before)


def test_merging_into_a_canvas_that_is_nearly_full_keeps_what_it_has() -> None:
    canvas, other = (Canvas(PIXEL, np.ones((4, 4)), max_pixels=5 * 16) for _ in range(2))
    for row in (0, 1):  # grows downwards, with room to spare that the merge has to give back
        canvas.add(np.full((4, 4), 1, np.float32), 0, row * PIXEL)
    other.add(np.full((4, 4), 2, np.float32), 12 * PIXEL, 0)
    canvas.merge(other)
    row = [1] * 4 + [np.nan] * 8 + [2] * 4
    np.testing.assert_array_equal(canvas.image().phase, [row] * 4 + [row[:12] + [np.nan] * 4])


def test_integers_never_overflow(monkeypatch: pytest.MonkeyPatch) -> None:
    peak = int(np.float32(np.pi) * 2**16) + 1
    assert stitching_kernels.HEADROOM // peak > 10_000_000
    monkeypatch.setattr(stitching_kernels, "HEADROOM", 5 * peak)
    canvas = Canvas(PIXEL, np.ones((2, 2)))
    patch = np.full((2, 2), np.pi, np.float32)
    for step in range(20):  # one pixel each: the sum of all peaks is beyond, no pixel is
        canvas.add(patch, 10 * step * PIXEL, 0)
    with pytest.raises(GeometryError, match="reset"):
        for _ in range(6):
            canvas.add(patch, 0, 0)
    assert np.nanmax(canvas.image().phase) == pytest.approx(np.pi, abs=1e-5)


def test_wrong_shapes_and_weights_are_refused() -> None:
    canvas = Canvas(PIXEL, np.ones((4, 4)))
    with pytest.raises(FrameError) as error:
        canvas.add(np.ones((4, 5), np.float32), 0, 0)
    assert error.value.cause is DropCause.SHAPE
    with pytest.raises(FrameError):
        canvas.add_batch(np.ones((2, 4, 4), np.float32), np.zeros((3, 2)))
    for weight in (np.zeros((4, 4)), -np.ones((4, 4)), np.full((4, 4), np.nan), np.ones(4), np.ones((0, 4))):
        with pytest.raises(GeometryError, match="patch weight"):
            Canvas(PIXEL, weight)
    for pixel in (0.0, -1e-9, np.nan):
        with pytest.raises(GeometryError, match="pixel size"):
            Canvas(pixel, np.ones((4, 4)))
    with pytest.raises(GeometryError, match="one geometry"):
        canvas.merge(Canvas(2 * PIXEL, np.ones((4, 4))))


def test_images_taken_while_another_thread_adds_are_consistent() -> None:
    canvas = Canvas(PIXEL, np.ones((16, 16)))
    # Batches large enough that an image taken without the lock would fall into one.
    batch = 512
    patches = np.full((batch, 16, 16), 0.5, np.float32)
    xy = np.random.default_rng(3).uniform(-1e-6, 1e-6, (100, batch, 2))
    done = threading.Event()

    def add() -> None:
        for places in xy:
            canvas.add_batch(patches, places)
        done.set()

    thread = threading.Thread(target=add)
    thread.start()
    seen = 0
    while not done.is_set() or not seen:
        image = canvas.image()
        patches_in_it = image.weight.astype(np.float64).sum() / 256
        # Whole batches alone: a torn copy would hold part of one.
        assert patches_in_it / batch == pytest.approx(round(patches_in_it / batch), abs=1e-4)
        assert (image.phase[image.weight > 0] == 0.5).all()
        seen += 1
    thread.join()
    assert canvas.patches == 100 * batch


def test_probe_weight_is_the_probes_footprint() -> None:
    rows, columns = np.indices((64, 64)) - 32
    mode = np.exp(-((rows / 10.0) ** 2 + (columns / 5.0) ** 2) / 2).astype(np.complex64)
    weight = probe_weight(np.stack([mode, 1j * mode]), (32, 48))
    assert weight.shape == (32, 48)
    assert weight.max() == 1
    assert np.unravel_index(weight.argmax(), weight.shape) == (16, 24)
    np.testing.assert_allclose(weight[1:, 1:], weight[1:, 1:][::-1, ::-1], atol=1e-6)
    # Intensity exp(-r²/100) blurred by 2 pixels: variance 50 + 4.
    assert weight[16 + 8, 24] == pytest.approx(np.exp(-(8**2) / 2 / 54), abs=0.01)
    assert weight[16, 0] == 0
    fine = probe_weight(mode, (64, 64), pixel_ratio=0.5)
    np.testing.assert_allclose(fine[::2, ::2], weight[:, 8:40], atol=1e-6)
    for senseless in (np.zeros((8, 8)), np.full((8, 8), np.nan), np.ones(8)):
        with pytest.raises(GeometryError, match="probe"):
            probe_weight(senseless, (8, 8))
