"""The spread of the patches: exact for any order, right for independent and for shared errors, and free where off."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from ptychostream.imaging.phase_image import PhaseImage
from ptychostream.imaging.sigma import CALIBRATED, SPREAD_ONLY, phase_sigma
from ptychostream.imaging.stitching import Canvas

PIXEL = 1e-8
SIDE = 24
WEIGHT = np.outer(np.hanning(SIDE + 2)[1:-1], np.hanning(SIDE + 2)[1:-1]).astype(np.float32)


def scene(seed: int, frames: int) -> tuple[NDArray[np.float64], NDArray[np.float64], np.random.Generator]:
    """A smooth sample, whole-pixel places of patches on it, and the generator."""
    rng = np.random.default_rng(seed)
    rows, columns = np.indices((96, 96))
    sample = 1.5 * np.sin(rows / 9) * np.cos(columns / 7) + 0.4
    return sample, rng.integers(0, 96 - SIDE + 1, (frames, 2)), rng


def stitched(
    sample: NDArray[np.float64], corners: NDArray[np.float64], errors: NDArray[np.float64], tau: float = 1.0
) -> Canvas:
    """Patches of the sample with their errors."""
    canvas = Canvas(PIXEL, WEIGHT, spread=True)
    cut = np.stack([sample[r : r + SIDE, c : c + SIDE] for r, c in corners])
    xy = (corners[:, ::-1] + SIDE // 2) * PIXEL
    canvas.add_batch((cut + tau * errors).astype(np.float32), xy)
    return canvas


@st.composite
def patch_sets(draw: st.DrawFn) -> tuple[NDArray[np.float32], NDArray[np.float64], NDArray[np.float32]]:
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    shape, count = (draw(st.integers(1, 9)), draw(st.integers(1, 9))), draw(st.integers(1, 12))
    patches = rng.uniform(-31, 31, (count, *shape)).astype(np.float32)
    xy = rng.uniform(-1, 1, (count, 2)) * draw(st.sampled_from([0.0, 3.0, 60.0])) * PIXEL
    weight = rng.choice([0, 0.1, 0.7, 1.0], shape).astype(np.float32)
    weight[rng.integers(shape[0]), rng.integers(shape[1])] = 1
    return patches, xy, weight


@settings(max_examples=60, deadline=None)
@given(patch_sets(), st.data())
def test_any_order_and_any_split_give_the_same_spread_and_what_is_taken_back_leaves_no_trace(
    case: tuple[NDArray[np.float32], NDArray[np.float64], NDArray[np.float32]], data: st.DataObject
) -> None:
    patches, xy, weight = case
    straight = Canvas(PIXEL, weight, spread=True)
    straight.add_batch(patches, xy)
    workers = [Canvas(PIXEL, weight, spread=True) for _ in range(3)]
    for index in data.draw(st.permutations(range(len(patches)))):
        data.draw(st.sampled_from(workers)).add(patches[index], *xy[index])
    extra = Canvas(PIXEL, weight, spread=True)
    extra.add(patches[0], *xy[0])
    total = Canvas.from_state(pickle.loads(pickle.dumps(workers.pop().state())), weight)
    total.merge(extra)
    for worker in workers:
        total.merge(worker)
    total.subtract_state(extra.state())
    for mine, theirs in zip(total.state().sums, straight.state().sums, strict=True):
        np.testing.assert_array_equal(mine, theirs)
    one, other = total.image(), straight.image()
    assert one.spread is not None and other.spread is not None
    assert one.spread.single.tobytes() == other.spread.single.tobytes()
    plain = Canvas(PIXEL, weight)
    plain.add_batch(patches, xy)
    assert plain.image().spread is None and len(plain.state().sums) == 2
    assert plain.image().phase.tobytes() == other.phase.tobytes()


@settings(max_examples=40, deadline=None)
@given(patch_sets())
def test_agrees_with_the_weighted_variance_in_floating_point(
    case: tuple[NDArray[np.float32], NDArray[np.float64], NDArray[np.float32]],
) -> None:
    patches, xy, weight = case
    xy = np.rint(xy / PIXEL) * PIXEL
    weight = np.rint(weight * 1024) / 1024
    canvas = Canvas(PIXEL, weight, spread=True)
    canvas.add_batch(patches, xy)
    image = canvas.image()
    left, top = (round(one / PIXEL) for one in image.origin_m)
    h, w = weight.shape
    sums = np.zeros((4, 300, 300))
    for patch, (x, y) in zip(patches.astype(np.float64), np.rint(xy / PIXEL).astype(int), strict=True):
        row, column = y - h // 2 + 150, x - w // 2 + 150
        inner = (slice(None), slice(row, row + h), slice(column, column + w))
        sums[inner] += np.stack([weight * patch, weight, weight * patch**2, weight**2])
    rows, columns = image.phase.shape
    value, total, square, squared = sums[:, top + 150 : top + 150 + rows, left + 150 : left + 150 + columns]
    with np.errstate(all="ignore"):
        number = total**2 / squared
        wanted = np.sqrt(np.maximum(square / total - (value / total) ** 2, 0) / (1 - 1 / number))
    assert image.spread is not None
    known = total > 0
    np.testing.assert_allclose(image.spread.number[known], number[known], rtol=2e-3)
    several = known & (number > 1.1)
    np.testing.assert_allclose(image.spread.single[several], wanted[several], rtol=2e-3, atol=0.03)
    assert np.isnan(image.spread.single[known & (number < 1.005)]).all()


def error_of(image: PhaseImage, sample: NDArray[np.float64]) -> NDArray[np.float64]:
    left, top = (round(one / PIXEL) for one in image.origin_m)
    error: NDArray[np.float64] = (
        image.phase - sample[top : top + image.phase.shape[0], left : left + image.phase.shape[1]]
    )
    return error


@pytest.mark.parametrize("tau", [0.02, 0.2])
def test_independent_errors_fall_with_the_number_of_patches(tau: float) -> None:
    """Without a common error, s is τ, and s / √n is the rms error of the image, whatever n is."""
    sample, corners, rng = scene(1, 900)
    canvas = stitched(sample, corners, rng.normal(0, tau, (900, SIDE, SIDE)))
    image = canvas.image()
    assert image.spread is not None
    error = error_of(image, sample)
    found = phase_sigma(image.spread, (0.0, 0.0))
    known = np.isfinite(found.values)
    assert np.sqrt(np.mean(image.spread.single[known] ** 2)) == pytest.approx(tau, rel=0.03)
    for low, high in ((2, 10), (10, 30), (30, 1000)):
        some = known & (image.spread.number >= low) & (image.spread.number < high)
        assert some.sum() > 100
        assert np.mean(error[some] ** 2) == pytest.approx(np.mean(found.values[some] ** 2), rel=0.15)
    assert np.mean(np.abs(error[known]) < found.values[known]) == pytest.approx(0.683, abs=0.03)
    assert np.mean(np.abs(error[known]) < 2 * found.values[known]) == pytest.approx(0.954, abs=0.02)


def test_a_common_error_does_not_show_in_the_spread_and_stays_however_many_patches_there_are() -> None:
    """The floor alone describes it; s / √n would claim that it is 0."""
    sample, corners, rng = scene(2, 900)
    bias = rng.normal(0, 0.1, sample.shape)
    for frames in (200, 900):
        canvas = stitched(sample + bias, corners[:frames], np.zeros((frames, SIDE, SIDE)))
        image = canvas.image()
        assert image.spread is not None
        error = error_of(image, sample)
        alone, found = phase_sigma(image.spread, (0.0, 0.0)), phase_sigma(image.spread, (0.5, 0.1))
        known = np.isfinite(found.values)
        assert np.nanpercentile(alone.values, 99) < 2e-3
        assert np.sqrt(np.mean(error[known] ** 2)) == pytest.approx(found.median, rel=0.05)
        assert np.mean(np.abs(error[known]) < found.values[known]) == pytest.approx(0.683, abs=0.03)


def test_errors_with_a_common_part_have_the_factor_of_their_correlation() -> None:
    """ε_i has τ = 0.1 and b has 0.05 on every pixel: factor = 0.5, and the correlation of two patches is 1 / 5."""
    sample, corners, rng = scene(3, 900)
    canvas = stitched(sample + rng.normal(0, 0.05, sample.shape), corners, rng.normal(0, 0.1, (900, SIDE, SIDE)))
    image = canvas.image()
    assert image.spread is not None
    error = error_of(image, sample)
    found = phase_sigma(image.spread, (0.5, 0.0))
    known = np.isfinite(found.values)
    assert np.mean(error[known] ** 2) == pytest.approx(np.mean(found.values[known] ** 2), rel=0.05)


def test_where_one_patch_lies_the_error_is_not_known_even_between_pixels() -> None:
    canvas = Canvas(PIXEL, WEIGHT, spread=True)
    ramp = np.add.outer(np.arange(SIDE), np.arange(SIDE)).astype(np.float32) / 10
    canvas.add(ramp, 0.37 * PIXEL, 0.81 * PIXEL)
    spread = canvas.image().spread
    assert spread is not None
    assert np.isnan(spread.single).all()
    assert np.isnan(phase_sigma(spread, None).median)


def test_without_a_calibration_the_spread_is_given_and_says_so() -> None:
    sample, corners, rng = scene(4, 300)
    spread = stitched(sample, corners, rng.normal(0, 0.1, (300, SIDE, SIDE))).image().spread
    assert spread is not None
    given = phase_sigma(spread, None)
    known = np.isfinite(given.values)
    np.testing.assert_array_equal(given.values[known], spread.single[known])
    assert (given.kind, phase_sigma(spread, (1.0, 0.1)).kind) == (SPREAD_ONLY, CALIBRATED)


def test_a_canvas_with_patches_cannot_begin_and_forgets_when_it_is_told_to() -> None:
    canvas = Canvas(PIXEL, WEIGHT)
    assert canvas.want_spread(True)
    canvas.add(np.ones((SIDE, SIDE), np.float32), 0, 0)
    with_spread = canvas.nbytes
    assert canvas.image().spread is not None
    assert not canvas.want_spread(False)
    assert canvas.nbytes * 2 == with_spread
    assert not canvas.want_spread(True)
    canvas.add(np.ones((SIDE, SIDE), np.float32), 30 * PIXEL, 0)
    assert canvas.image().spread is None


def test_a_sum_with_a_canvas_that_has_no_spread_has_none() -> None:
    one, other = Canvas(PIXEL, WEIGHT, spread=True), Canvas(PIXEL, WEIGHT)
    one.merge(other)
    assert one.has_spread, "an empty canvas adds nothing"
    other.add(np.ones((SIDE, SIDE), np.float32), 0, 0)
    one.merge(other)
    assert not one.has_spread
    assert one.image().phase.tobytes() == other.image().phase.tobytes()
