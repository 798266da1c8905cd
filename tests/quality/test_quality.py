"""The one SSIM: what it must not see (shift, constant, ramp) and what it must (everything else)."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray
from skimage.metrics import structural_similarity

from ptychostream.errors import GeometryError
from ptychostream.imaging.phase_image import PhaseImage
from ptychostream.imaging.registration import MAX_SHIFT_PX, align, fit_plane, measured_area, smooth
from ptychostream.quality.quality import compare, measure

PIXEL_M = 15e-9
SHAPE = (96, 120)


def texture(rows: NDArray[np.float64], columns: NDArray[np.float64], seed: int = 1) -> NDArray[np.float64]:
    """A band-limited phase that can be evaluated anywhere: no interpolation in the test's own truth."""
    random = np.random.default_rng(seed)
    waves = random.uniform(-0.9, 0.9, (40, 2))
    offsets = random.uniform(0, 2 * np.pi, 40)
    phase = sum(np.cos(a * rows + b * columns + c) for (a, b), c in zip(waves, offsets, strict=True))
    return 0.12 * np.asarray(phase)


def picture(
    shape: tuple[int, int] = SHAPE,
    origin_px: tuple[float, float] = (0.0, 0.0),
    moved_px: tuple[float, float] = (0.0, 0.0),
    pixel_m: float = PIXEL_M,
    seed: int = 1,
) -> PhaseImage:
    """The texture on a grid whose first pixel lies at `origin_px` (row, column) and claims to lie there."""
    scale = pixel_m / PIXEL_M
    rows = (np.arange(shape[0]) * scale + origin_px[0])[:, None] - moved_px[0]
    columns = (np.arange(shape[1]) * scale + origin_px[1])[None, :] - moved_px[1]
    phase = texture(rows, columns, seed).astype(np.float32)
    return PhaseImage(phase, np.ones(shape, np.float32), (origin_px[1] * PIXEL_M, origin_px[0] * PIXEL_M), pixel_m)


def with_phase(image: PhaseImage, phase: NDArray[np.float64]) -> PhaseImage:
    return replace(image, phase=phase.astype(np.float32))


def test_identical_images_are_alike() -> None:
    quality = compare(picture(), picture())
    assert quality.ssim == pytest.approx(1, abs=1e-9)
    assert quality.ssim_1px == pytest.approx(1, abs=1e-9)
    assert quality.pearson == pytest.approx(1, abs=1e-9)
    assert quality.pixels == SHAPE[0] * SHAPE[1]
    assert quality.covered == 1


@pytest.mark.slow
@pytest.mark.parametrize("moved", [(1.0, -2.0), (0.37, 0.81), (-1.6, 3.3), (-2.5, -2.5)])
def test_a_shift_is_found_and_does_not_count(moved: tuple[float, float]) -> None:
    quality = compare(picture(moved_px=moved), picture())
    assert quality.shift_px == pytest.approx(moved, abs=0.03)
    assert quality.ssim > 0.995
    assert quality.pearson > 0.999


@pytest.mark.slow
@pytest.mark.parametrize("moved", [MAX_SHIFT_PX + 0.6, 1.7 * MAX_SHIFT_PX, -2.6 * MAX_SHIFT_PX])
def test_a_shift_beyond_the_limit_counts_and_is_said(moved: float) -> None:
    quality = compare(picture(moved_px=(0.0, moved)), picture())
    assert quality.ssim < 0.8
    assert quality.at_limit


@pytest.mark.slow
@pytest.mark.parametrize("moved", [0.0, 3.4, 3.9])
def test_a_shift_within_the_limit_is_not_said(moved: float) -> None:
    quality = compare(picture(moved_px=(-moved, moved)), picture())
    assert not quality.at_limit
    assert quality.ssim > 0.99


def test_an_image_of_something_else_is_not_called_shifted() -> None:
    assert not compare(picture(seed=2), picture()).at_limit


@pytest.mark.slow
@pytest.mark.parametrize("value", [2.5, -3.0, 3.1])
@pytest.mark.parametrize("pixels", [1, 2, 4])
def test_runaway_pixels_of_the_reference_change_nothing(value: float, pixels: int) -> None:
    random = np.random.default_rng(4)
    flat = with_phase(picture(), 0.15 * picture().phase)
    image = with_phase(flat, flat.phase + random.normal(0, 0.05, SHAPE))
    wild = flat.phase.copy()
    for row, column in random.integers(10, 80, (pixels, 2)):
        wild[row, column] = value
    before, after = compare(image, flat), compare(image, with_phase(flat, wild))
    assert (before.runaways, after.runaways) == (0, pixels)
    assert after.range_rad == pytest.approx(before.range_rad, rel=0.02)
    assert after.ssim == pytest.approx(before.ssim, abs=0.01)
    assert after.ssim_1px == pytest.approx(before.ssim_1px, abs=0.01)


def test_a_small_feature_of_the_sample_is_no_runaway() -> None:
    phase = 0.02 * picture().phase
    phase[40:43, 50:53] += 1.5  # a particle of nine pixels
    quality = compare(with_phase(picture(), phase), with_phase(picture(), phase))
    assert quality.runaways == 0
    assert quality.range_rad > 1.4
    assert quality.ssim == pytest.approx(1, abs=1e-9)


def test_constant_and_ramp_of_many_turns_do_not_count() -> None:
    image = picture()
    rows, columns = np.ogrid[: SHAPE[0], : SHAPE[1]]
    ramp = np.angle(np.exp(1j * (image.phase + 2.9 + 0.31 * rows - 0.173 * columns)))
    quality = compare(with_phase(image, ramp), picture())
    assert quality.ssim > 0.9999
    assert quality.shift_px == pytest.approx((0, 0), abs=1e-6)


def test_the_references_own_ramp_does_not_widen_its_range() -> None:
    random = np.random.default_rng(0)
    image = with_phase(picture(), picture().phase + random.normal(0, 0.2, SHAPE))
    rows, columns = np.ogrid[: SHAPE[0], : SHAPE[1]]
    tilted = with_phase(picture(), np.angle(np.exp(1j * (picture().phase + 0.2 * rows + 0.1 * columns + 3.0))))
    assert compare(image, tilted).ssim == pytest.approx(compare(image, picture()).ssim, abs=0.02)


def test_another_origin_is_the_same_picture() -> None:
    image = picture((60, 70), origin_px=(20.0, 31.0))
    quality = compare(image, picture())
    assert quality.ssim == pytest.approx(1, abs=1e-6)
    assert quality.shift_px == pytest.approx((0, 0), abs=1e-6)
    assert quality.covered == pytest.approx(60 * 70 / (SHAPE[0] * SHAPE[1]), rel=1e-6)


def test_an_origin_between_pixels_is_interpolated() -> None:
    quality = compare(picture(origin_px=(-3.4, -2.7), shape=(110, 130)), picture())
    assert quality.ssim > 0.995
    assert np.abs(quality.shift_px).max() < 0.03


def test_other_pixel_sizes_are_resampled() -> None:
    finer = picture((120, 150), pixel_m=PIXEL_M * 0.8)
    assert compare(finer, picture()).ssim > 0.98


def test_noise_lowers_it_and_less_at_one_pixels_resolution() -> None:
    random = np.random.default_rng(3)
    noise = random.normal(0, 1, SHAPE)
    faint, strong = (compare(with_phase(picture(), picture().phase + s * noise), picture()) for s in (0.1, 0.5))
    assert 1 > faint.ssim > strong.ssim
    assert strong.ssim_1px > strong.ssim
    assert strong.pearson_1px > strong.pearson
    assert max(map(abs, strong.shift_px)) < 0.2


@pytest.mark.slow
def test_another_sample_and_the_twin_are_far_below() -> None:
    assert compare(picture(seed=2), picture()).ssim < 0.5
    twin = with_phase(picture(), -picture().phase)
    assert compare(twin, picture()).pearson < 0.5
    assert compare(twin, picture()).ssim < 0.5


def test_the_area_alone_counts() -> None:
    random = np.random.default_rng(4)
    phase = picture().phase.astype(np.float64)
    phase[:, 60:] = random.uniform(-3, 3, (SHAPE[0], 60))
    area = np.zeros(SHAPE, bool)
    area[10:80, 5:55] = True
    image = with_phase(picture(), phase)
    assert compare(image, picture(), area).ssim == pytest.approx(1, abs=1e-6)
    assert compare(image, picture()).ssim < 0.8
    assert compare(image, picture(), area).pixels == area.sum()


def test_what_lies_outside_the_area_changes_nothing() -> None:
    random = np.random.default_rng(5)
    area = np.zeros(SHAPE, bool)
    area[20:70, 20:90] = True
    noisy = picture().phase + random.normal(0, 0.2, SHAPE)
    other = np.where(area, noisy, random.uniform(-3, 3, SHAPE))
    one, two = (compare(with_phase(picture(), phase), picture(), area) for phase in (noisy, other))
    assert one.shift_px == pytest.approx(two.shift_px, abs=0.15)
    assert one.ssim == pytest.approx(two.ssim, abs=0.02)


def test_holes_are_left_out() -> None:
    phase = picture().phase.astype(np.float64)
    phase[30:50, 40:60] = np.nan
    quality = compare(with_phase(picture(), phase), picture())
    assert quality.pixels == SHAPE[0] * SHAPE[1] - 400
    assert quality.ssim == pytest.approx(1, abs=1e-6)
    assert quality.covered == pytest.approx(1 - 400 / (SHAPE[0] * SHAPE[1]))
    holed = with_phase(picture(), phase)
    assert compare(picture(), holed).ssim == pytest.approx(1, abs=1e-6)


def test_a_ring_too_thin_for_the_window_is_still_compared() -> None:
    area = np.zeros(SHAPE, bool)
    area[20:24, 10:110] = True
    quality = compare(picture(), picture(), area)
    assert quality.pixels == 400
    assert quality.ssim == pytest.approx(1, abs=1e-6)


def test_a_wrapped_reference_is_unwrapped() -> None:
    rows, columns = np.ogrid[: SHAPE[0], : SHAPE[1]]
    hill = 9 * np.exp(-((rows - 48) ** 2 + (columns - 60) ** 2) / 800)
    wrapped = np.angle(np.exp(1j * hill))
    reference = with_phase(picture(), wrapped)
    aligned = align(reference, reference)
    # A hill has a mean; what the plane takes off is at most that.
    assert np.ptp(aligned.reference[aligned.mask]) == pytest.approx(9, abs=0.8)
    random = np.random.default_rng(0)
    noisy = with_phase(picture(), np.angle(np.exp(1j * (hill + random.normal(0, 0.1, SHAPE)))))
    assert compare(noisy, reference).pearson > 0.99


def test_no_overlap_is_an_error_that_says_so() -> None:
    far = picture(origin_px=(500.0, 500.0))
    with pytest.raises(GeometryError, match="share 0 of the area"):
        compare(far, picture())
    empty = with_phase(picture(), np.full(SHAPE, np.nan))
    with pytest.raises(GeometryError, match="share 0 of the area"):
        compare(empty, picture())
    with pytest.raises(GeometryError, match="holds 0 measured pixels"):
        compare(picture(), picture(), np.zeros(SHAPE, bool))
    with pytest.raises(GeometryError, match="holds 0 measured pixels"):
        compare(picture(), empty)


def test_an_area_of_another_shape_and_a_flat_reference_are_errors() -> None:
    with pytest.raises(GeometryError, match="shape"):
        compare(picture(), picture(), np.ones((3, 3), bool))
    with pytest.raises(GeometryError, match="flat"):
        compare(picture(), with_phase(picture(), np.zeros(SHAPE)))
    with pytest.raises(GeometryError, match="pixels of"):
        compare(replace(picture(), pixel_m=PIXEL_M * 5), picture())


def test_a_flat_image_scores_nothing() -> None:
    quality = compare(with_phase(picture(), np.zeros(SHAPE)), picture())
    assert quality.pearson == pytest.approx(0, abs=0.05)
    assert quality.ssim < 0.3


def test_the_default_area_leaves_the_faint_rim_out() -> None:
    weight = np.full(SHAPE, 0.05, np.float32)
    weight[20:80, 20:100] = 1
    image = replace(picture(), weight=weight)
    assert measured_area(image).sum() == 60 * 80
    assert compare(picture(), image).pixels == 60 * 80


def test_plane_of_a_mask_is_exact() -> None:
    rows, columns = np.ogrid[:40, :50]
    plane = 1.0 + 0.7 * rows - 1.1 * columns
    mask = (rows - 20) ** 2 + (columns - 25) ** 2 < 200
    fitted = fit_plane(np.exp(1j * plane), mask)
    np.testing.assert_allclose(np.exp(1j * fitted), np.exp(1j * plane), atol=1e-9)


def test_smoothing_sees_the_mask_alone() -> None:
    mask = np.zeros((30, 30), bool)
    mask[5:25, 5:25] = True
    values = np.where(mask, 2.0, 1e6)
    np.testing.assert_allclose(smooth(values, mask, 1.0)[mask], 2.0, rtol=1e-12)


def test_ssim_is_scikit_images_over_the_areas_inner_pixels() -> None:
    random = np.random.default_rng(6)
    noise = random.normal(0, 0.3, SHAPE)
    noise[20:26] *= 8  # the area's rim is worse than its middle
    area = np.zeros(SHAPE, bool)
    area[20:70, 20:90] = True
    aligned = align(with_phase(picture(), picture().phase + noise), picture(), area)
    image, reference = (values[20:70, 20:90] for values in (aligned.image, aligned.reference))
    expected = structural_similarity(
        reference,
        image,
        data_range=np.ptp(reference),
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
    )
    assert measure(aligned).ssim == pytest.approx(expected, abs=1e-9)
    assert measure(aligned).pearson == pytest.approx(np.corrcoef(image.ravel(), reference.ravel())[0, 1])
