"""What an adaptive scan reads out of the pictures: weights in patches, and where the patches contradict each other."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from ptychostream.adaptive.maps import CELLS_PER_BEAM, footprint, look, unseen
from ptychostream.adaptive.scan import AdaptiveScan
from ptychostream.errors import ConfigError
from ptychostream.imaging.phase_image import PhaseImage
from ptychostream.imaging.stitching import Canvas

PIXEL_M = 20e-9
SIZE = 32
BEAM_M = 24 * PIXEL_M


def weight_of_a_patch() -> NDArray[np.float32]:
    axis = np.arange(SIZE) - SIZE // 2
    return np.clip((0.6 * 24 - np.hypot(axis[:, None], axis[None])) / 4.8, 0, 1).astype(np.float32)


def points() -> NDArray[np.float64]:
    axis = (np.arange(12) - 5.5) * 8 * PIXEL_M
    return np.stack(np.meshgrid(axis, axis), axis=-1).reshape(-1, 2)


def stitched(chosen: NDArray[np.intp], noise: float, noisy_side: float, scale: float = 1.0) -> PhaseImage:
    """Patches of a flat sample; where x > 0 their error is `noisy_side` times as large."""
    random = np.random.default_rng(1)
    canvas = Canvas(PIXEL_M, weight_of_a_patch() * np.float32(scale))
    errors = random.normal(0, noise, (len(points()), 1, 1)) * np.ones((1, SIZE, SIZE))
    errors[points()[:, 0] > 0] *= noisy_side
    canvas.add_batch(errors[chosen].astype(np.float32), points()[chosen])
    return canvas.image()


@pytest.mark.parametrize("scale", [1.0, 0.4])
def test_weights_are_counted_in_patches_whatever_their_unit(scale: float) -> None:
    everything = np.arange(len(points()))
    maps = look([stitched(everything, 0.1, 1.0, scale)], points(), BEAM_M, len(everything))
    covered = (24 / 8) ** 2 * np.pi / 4  # patches over each place of a grid with steps of a third of the beam
    middle = maps.weight[maps.weight.shape[0] // 2, maps.weight.shape[1] // 2]
    assert middle == pytest.approx(covered, rel=0.25)
    assert maps.cell_m == pytest.approx(BEAM_M / CELLS_PER_BEAM)


def test_consistency_gives_the_variance_of_a_patch_and_where_it_is_large() -> None:
    everything = np.arange(len(points()))
    half = everything[::2]
    images = [stitched(half, 0.1, 3.0), stitched(everything, 0.1, 3.0)]
    maps = look(images, points(), BEAM_M, len(everything))
    columns = maps.first_m[0] + maps.cell_m * np.arange(maps.weight.shape[1])
    seen = maps.weight > 3
    quiet = maps.variance[seen & (columns[None] < -1.5 * BEAM_M / 2)].mean()
    loud = maps.variance[seen & (columns[None] > 1.5 * BEAM_M / 2)].mean()
    assert loud > 4 * quiet
    assert quiet == pytest.approx(0.1**2, rel=0.6)


def test_one_picture_says_nothing_of_the_consistency() -> None:
    maps = look([stitched(np.arange(20), 0.1, 3.0)], points(), BEAM_M, 20)
    assert np.ptp(maps.variance) == 0
    assert np.isfinite(maps.uncertainty).all()


def test_an_empty_picture_is_as_good_as_none() -> None:
    empty = PhaseImage(np.full((8, 8), np.nan, np.float32), np.zeros((8, 8), np.float32), (0.0, 0.0), PIXEL_M)
    maps = look([empty, empty], points(), BEAM_M, 0)
    assert not maps.weight.any()
    assert np.isfinite(maps.uncertainty).all()
    assert maps.weight.shape == unseen(points(), BEAM_M).weight.shape


def test_a_picture_elsewhere_is_left_out() -> None:
    image = stitched(np.arange(40), 0.1, 1.0)
    far = PhaseImage(image.phase, image.weight, (1e-3, 1e-3), PIXEL_M)
    assert not look([far], points(), BEAM_M, 40).weight.any()


def test_the_footprint_has_the_beams_diameter() -> None:
    patch = footprint(BEAM_M, BEAM_M / 16)
    assert patch.max() == 1
    assert patch.sum() * (BEAM_M / 16) ** 2 == pytest.approx(np.pi / 4 * BEAM_M**2, rel=0.06)


# ---------------------------------------------------------------- the scan


def run(scan: AdaptiveScan, noisy_side: float) -> list[int]:
    sizes = []
    while len(chosen := scan.next()):
        sizes.append(len(chosen))
        measured = np.append(np.flatnonzero(scan.measured), chosen)
        scan.took(chosen, stitched(measured, 0.1, noisy_side), len(measured))
    return sizes


def test_a_scan_is_sparse_at_first_and_ends_with_its_budget() -> None:
    scan = AdaptiveScan(points(), BEAM_M, budget=72, sparse=37, part=10)
    assert run(scan, 3.0) == [19, 18, 10, 10, 10, 5]
    assert scan.measured.sum() == 72


def test_its_later_points_go_where_the_picture_is_uncertain() -> None:
    scan = AdaptiveScan(points(), BEAM_M, budget=90, sparse=40, part=10)
    run(scan, 5.0)
    on_the_noisy_side = (points()[scan.measured, 0] > 0).mean()
    assert on_the_noisy_side > 0.58
    even = AdaptiveScan(points(), BEAM_M, budget=90, sparse=90)
    run(even, 5.0)
    assert 0.42 < (points()[even.measured, 0] > 0).mean() < 0.58


@pytest.mark.parametrize(
    ("budget", "sparse", "part"), [(0, None, None), (145, None, None), (20, 21, None), (20, 0, None), (20, 10, 0)]
)
def test_numbers_that_cannot_be_are_refused(budget: int, sparse: int | None, part: int | None) -> None:
    with pytest.raises(ConfigError, match="adaptive scan"):
        AdaptiveScan(points(), BEAM_M, budget, sparse, part)
