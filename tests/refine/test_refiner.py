"""The refiner: better than the network and than ePIE at every overlap, in bounded memory, and what it refuses."""

from __future__ import annotations

import numpy as np
import pytest
from refine_case import SIZE, Case, case

from ptychostream.errors import DivergedError, ReconstructionError
from ptychostream.imaging.phase_image import PhaseImage
from ptychostream.reconstruct.options import ReconstructOptions
from ptychostream.reconstruct.run import reconstruct
from ptychostream.refine.field import RefinedField
from ptychostream.refine.frame_store import FrameStore
from ptychostream.refine.refiner import Refiner


def add(one: Case, refiner: Refiner, frames: slice) -> None:
    good = np.ones((SIZE, SIZE), np.bool_)
    for counts, place in zip(one.scan.counts[frames], one.scan.positions_m[frames], strict=True):
        refiner.add(counts, good, (float(place[0]), float(place[1])))


def fed(one: Case, refiner: Refiner, frames: slice = slice(None)) -> Refiner:
    add(one, refiner, frames)
    refiner.guide(one.network)
    return refiner


def epie(one: Case, iterations: int) -> float:
    options = ReconstructOptions(iterations=iterations)
    return one.ssim(reconstruct(one.scan, options, initial_probe=one.probe).phase_image())


# Steps of a beam of 450 nm: overlaps of 0.78, 0.56, 0.33 and none. At 0.56 ePIE from nothing is a little better: the
# smooth errors of this network take many passes to go.
@pytest.mark.parametrize(
    ("step_m", "frames", "less"),
    [
        pytest.param(100e-9, 140, 0.01, marks=pytest.mark.slow),
        pytest.param(200e-9, 80, 0.05, marks=pytest.mark.slow),
        (300e-9, 50, 0.0),
        (500e-9, 30, 0.0),
    ],
)
def test_it_is_better_than_the_network_and_than_epie(step_m: float, frames: int, less: float) -> None:
    one = case(step_m, frames)
    refiner = fed(one, one.refiner())
    refiner.passes(40)
    refined, network, iterated = one.ssim(refiner.image()), one.ssim(one.network), epie(one, 40)
    assert refined > max(network, iterated) - less, (refined, network, iterated, refiner.figures())


def test_more_passes_lose_nothing() -> None:
    """ePIE alone, from the same start, loses again where the overlap is small."""
    one = case(500e-9, 30)
    refiner = fed(one, one.refiner())
    refiner.passes(10)
    early = one.ssim(refiner.image())
    refiner.passes(200)
    assert refiner.converged
    assert one.ssim(refiner.image()) > early - 0.01


def test_frames_that_share_nothing_are_left_after_few_passes() -> None:
    one = case(900e-9, 12)
    refiner = fed(one, one.refiner())
    refiner.passes(60)
    figures = refiner.figures()
    assert figures.converged and figures.pull.shared < 1e-4 and figures.passes <= 5
    assert one.ssim(refiner.image()) > one.ssim(one.network) - 0.005


def test_the_network_counts_where_its_canvas_has_little_weight_and_not_at_the_rims_of_patches() -> None:
    field = RefinedField(1.0)
    field.reserve(np.array([0, 0]), 8)
    weight = np.ones((8, 8), np.float32)
    weight[0], weight[1] = 0.02, 0.002
    phase = np.full((8, 8), 0.7, np.float32)
    phase[1] = -1.0
    field.guide(PhaseImage(phase, weight, (0.0, 0.0), 1.0))
    drawn = np.arctan2(field.object[1], field.object[0])
    np.testing.assert_allclose(drawn, 0.7, atol=1e-6)
    assert (field.prior[:, 0] != 0).any(axis=0).all() and not field.prior[:, 1].any()


def test_frames_come_in_order_and_the_image_grows() -> None:
    one = case()
    refiner = one.refiner()
    sizes = []
    for first in range(0, len(one.scan), 30):
        fed(one, refiner, slice(first, first + 30))
        assert not refiner.converged
        refiner.passes(2)
        sizes.append(refiner.image().phase.size)
        figures = refiner.figures()
        assert figures.least_passes >= 1, "a new frame was not used while others were used again"
    assert sizes == sorted(sizes) and sizes[-1] > 2 * sizes[0]
    assert one.ssim(refiner.image()) > one.ssim(one.network) + 0.1
    at = [round(start / one.truth.pixel_m, 6) for start in refiner.image().origin_m]
    assert at == [round(start) for start in at], "not on the canvas's own pixels"


def canvas_after(one: Case, frames: int) -> PhaseImage:
    """The network's canvas once it has drawn so many frames: patches of half the frame's side."""
    image, half = one.network, SIZE // 4
    weight = np.zeros_like(image.weight)
    for place in one.scan.positions_m[:frames]:
        column, row = (round(at) for at in (place - np.array(image.origin_m)) / image.pixel_m)
        weight[max(row - half, 0) : row + half, max(column - half, 0) : column + half] += 1
    return PhaseImage(image.phase, np.where(image.weight > 0, weight, 0), image.origin_m, image.pixel_m)


@pytest.mark.parametrize(("step_m", "frames"), [(100e-9, 140), (200e-9, 80), (300e-9, 50)])
def test_a_canvas_that_is_read_late_costs_little(step_m: float, frames: int) -> None:
    """A busy machine reads the canvas after frames were used: what they made from nothing is not kept."""
    one = case(step_m, frames)
    found = []
    for behind in (0, 10):
        refiner = one.refiner()
        for first in range(0, frames, 10):
            add(one, refiner, slice(first, first + 10))
            if first + 10 - behind:
                refiner.guide(canvas_after(one, first + 10 - behind))
            refiner.passes(1)
        refiner.guide(canvas_after(one, frames))
        refiner.passes(1)
        found.append(one.ssim(refiner.image()))
    assert found[1] > found[0] - 0.03
    assert min(found) > one.ssim(one.network) + 0.1


def test_what_the_network_shows_begins_anew_once_alone() -> None:
    field = RefinedField(1.0)
    field.reserve(np.array([0, 0]), 8)
    field.visits[:] = 9.0
    field.object[0], field.object[1] = 0.0, 1.0  # used before the network showed anything
    weight = np.zeros((8, 8), np.float32)
    weight[:, :4] = 1
    for phase in (0.7, -0.7):  # the network's phase changes later
        field.guide(PhaseImage(np.full((8, 8), phase, np.float32), weight, (0.0, 0.0), 1.0))
        drawn = np.arctan2(field.object[1], field.object[0])
        np.testing.assert_allclose(drawn[:, :4], 0.7, atol=1e-6)
        np.testing.assert_allclose(drawn[:, 4:], np.pi / 2, atol=1e-6)


def test_new_frames_are_used_first_and_not_for_ever() -> None:
    store = FrameStore(SIZE, 2**22)
    random = np.random.default_rng(0)
    good = np.ones((SIZE, SIZE), np.bool_)
    frame = np.ones((SIZE, SIZE), np.uint16)
    for index in range(10):
        store.add(frame, good, (index * 1e-6, 0.0))
    for _ in range(20):
        store.next(10, random)
    store.add(frame, good, (11e-6, 0.0))
    used = [int(store.next(1, random)[0]) for _ in range(40)]
    assert used[:3] == [10, 10, 10]
    assert used.count(10) <= 8
    assert store.passes[:10].min() >= 22


def test_full_memory_leaves_frames_out_evenly() -> None:
    store = FrameStore(SIZE, 64 * 2 * SIZE * SIZE)
    assert store.capacity == 64
    good = np.ones((SIZE, SIZE), np.bool_)
    places = [(column * 1e-7, row * 1e-7) for row in range(40) for column in range(40)]
    for number, place in enumerate(places):
        store.add(np.full((SIZE, SIZE), number % 7 + 1, np.uint16), good, place)
    kept = store.positions_m[: len(store)]
    assert 20 <= len(store) <= 64
    assert store.left_out == len(places) - len(store)
    for quarter in ((0, 0), (0, 1), (1, 0), (1, 1)):
        inside = ((kept[:, ::-1] >= 2e-6).astype(int) == quarter).all(axis=1)
        assert 0.5 < inside.mean() / 0.25 < 1.5, "not even"
    for place, power in zip(kept, store.power, strict=False):  # a frame stayed with its position
        number = places.index(min(places, key=lambda one: np.hypot(*(np.array(one) - place))))
        assert power == (number % 7 + 1) * SIZE * SIZE


def test_stored_amplitudes_keep_counts_and_bad_pixels() -> None:
    store = FrameStore(SIZE, 2**20)
    counts = np.random.default_rng(0).poisson(1000, (SIZE, SIZE)).astype(np.uint32)
    good = np.ones((SIZE, SIZE), np.bool_)
    good[3, 4], counts[3, 4] = False, 2**32 - 1
    store.add(counts, good, (0.0, 0.0))
    stored = np.sort(store.amplitudes[0].ravel())
    assert (stored == 65535).sum() == 1
    expected = np.sort(np.sqrt(counts[good].astype(float)))
    np.testing.assert_allclose(stored[:-1] / 32, expected, atol=1 / 64 + 1e-3)
    assert store.power[0] == counts[good].sum()


def test_what_diverges_is_stopped_and_the_last_good_image_is_kept() -> None:
    one = case()
    refiner = fed(one, one.refiner())
    refiner.passes(3)
    good = refiner.image().phase
    refiner.store.amplitudes[5:20] = 60000  # 3.5 million counts in each pixel, of frames that had 1000 in all
    with pytest.raises(DivergedError, match="last good"):
        refiner.passes(20)
    np.testing.assert_array_equal(refiner.image().phase, good)


@pytest.mark.parametrize(
    ("probe", "what"),
    [
        (np.zeros((1, SIZE, SIZE), np.complex64), "zero"),
        (np.full((1, SIZE, SIZE), np.nan, np.complex64), "finite"),
        (np.ones((1, 31, 31), np.complex64), "shape"),
        (np.ones((1, 32, 16), np.complex64), "shape"),
    ],
)
def test_a_probe_that_cannot_be_used_is_refused(probe: np.ndarray, what: str) -> None:
    with pytest.raises(ReconstructionError, match=what):
        Refiner(probe, 1e-8)


def test_frames_and_canvases_of_another_geometry_are_refused() -> None:
    one = case()
    refiner = fed(one, one.refiner(max_pixels=200_000))
    good = np.ones((64, 64), np.bool_)
    with pytest.raises(ReconstructionError, match="a frame of"):
        refiner.add(good.astype(np.uint16), good, (0.0, 0.0))
    small = good[:SIZE, :SIZE]
    for place in ((1.0, 0.0), (np.nan, 0.0)):
        with pytest.raises(ReconstructionError, match="position"):
            refiner.add(small.astype(np.uint16), small, place)
    image = PhaseImage(one.network.phase, one.network.weight, one.network.origin_m, 1.1 * one.network.pixel_m)
    with pytest.raises(ReconstructionError, match="energy"):
        refiner.guide(image)
    refiner.passes(1)
    assert np.isfinite(refiner.figures().r_factor)
