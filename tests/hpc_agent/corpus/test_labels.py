"""Labels are the object under the probe, wherever the frame lies; the split shares no pixel."""

from __future__ import annotations

import dataclasses
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from training_scans import small_scan

from ptychostream.errors import GeometryError, TrainingError
from ptychostream.hpc_agent.corpus.labels import INTERPOLATION_MARGIN, flatten, make_labels, suggest_reduction
from ptychostream.hpc_agent.corpus.simulated_pairs import SYMMETRIES, Simulator, add_simulated, diffract, poisson, turn
from ptychostream.hpc_agent.corpus.training_data import (
    SIDES,
    Source,
    build_corpus,
    default_preprocessing,
    held_out_area,
    label_area,
    label_extent_m,
    measure_normalisation,
    measured,
    measured_corpus,
    spatial_split,
)
from ptychostream.model.contract import Preprocessing
from ptychostream.quality.measured_input import measured_input
from ptychostream.scans.scan import Reconstruction

PIXEL = 2.5e-8


def known(phase: np.ndarray, origin: tuple[float, float] = (3e-7, -2e-7)) -> Reconstruction:
    """A reconstruction whose object has this phase and modulus 1."""
    probe = np.zeros((1, 32, 32), np.complex64)
    probe[0, 12:21, 12:21] = 1
    return Reconstruction(
        object=np.exp(1j * phase).astype(np.complex64),
        probe=probe,
        origin_m=origin,
        pixel_m=PIXEL,
        positions_m=np.zeros((0, 2)),
        errors=np.array([0.1]),
        coverage=np.ones(phase.shape, np.float32),
    )


def waves(rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    return 0.4 * np.sin(2 * np.pi * rows / 24) * np.cos(2 * np.pi * columns / 16)


def test_a_label_is_the_object_at_the_frames_position_between_its_pixels_too() -> None:
    rows, columns = np.indices((96, 96))
    reconstruction = known(waves(rows, columns))
    at = np.array([[40.0, 50.0], [40.25, 50.5], [55.7, 33.1]])  # (column, row) of [h//2, w//2]
    labels = make_labels(reconstruction, at * PIXEL + np.array(reconstruction.origin_m), (16, 24))
    assert labels.phase.shape == (3, 16, 24)
    assert labels.pixel_m == PIXEL
    for (column, row), phase in zip(at, labels.phase, strict=True):
        r, c = np.mgrid[-8:8, -12:12]
        np.testing.assert_allclose(phase, waves(row + r, column + c), atol=2e-3)


def test_a_global_phase_and_ramp_change_no_label_even_where_they_wrap() -> None:
    rows, columns = np.indices((96, 96))
    plain = known(waves(rows, columns))
    tilted = known(waves(rows, columns) + 2.5 + 0.31 * rows - 0.17 * columns)
    tilted.object *= 7
    at = np.array([[40.3, 50.6]]) * PIXEL + np.array(plain.origin_m)
    expected, found = (make_labels(r, at, (32, 32)) for r in (plain, tilted))
    np.testing.assert_allclose(found.phase, expected.phase, atol=5e-3)
    np.testing.assert_allclose(found.amplitude, expected.amplitude, atol=5e-3)
    assert flatten(tilted).slope == pytest.approx((0.31, -0.17), abs=2e-3)


def test_the_slope_is_all_the_linear_phase_that_was_taken_off() -> None:
    rows, columns = np.indices((96, 96))
    edge = known(np.where(rows < 20, 1.2, 0) + 0.3 * (columns > 70) + 0.05 * rows)
    flat = flatten(edge)
    taken = edge.object / flat.object
    assert np.angle(taken[1:] / taken[:-1]) == pytest.approx(flat.slope[0], abs=1e-4)
    assert np.angle(taken[:, 1:] / taken[:, :-1]) == pytest.approx(flat.slope[1], abs=1e-4)


def test_amplitude_is_between_0_and_1() -> None:
    _, truth = small_scan()
    labels = make_labels(truth, truth.positions_m, (16, 16))
    assert labels.amplitude.min() >= 0
    assert 0.9 < labels.amplitude.max() <= 1


def test_the_weight_is_the_probes_footprint() -> None:
    labels = make_labels(known(np.zeros((96, 96))), np.array([[1.5e-6, 1e-6]]), (16, 16), blur_px=0.5)
    assert labels.weight.max() == 1
    assert labels.weight[8, 8] > 0.99
    assert labels.weight[0, 0] == 0


def test_what_cannot_be_cut_is_refused() -> None:
    reconstruction = known(np.zeros((64, 64)))
    inside = np.array([[32.0, 32.0]]) * PIXEL + np.array(reconstruction.origin_m)
    with pytest.raises(GeometryError, match="label of frame 1 leaves"):
        make_labels(reconstruction, np.concatenate([inside, inside + 20 * PIXEL]), (32, 32))
    with pytest.raises(TrainingError, match="position 0 is not finite"):
        make_labels(reconstruction, np.array([[np.nan, 0]]), (32, 32))
    with pytest.raises(TrainingError, match="covers nothing"):
        make_labels(dataclasses.replace(reconstruction, coverage=np.zeros((64, 64), np.float32)), inside, (32, 32))
    with pytest.raises(TrainingError, match="object is not finite"):
        make_labels(dataclasses.replace(reconstruction, object=reconstruction.object * np.nan), inside, (32, 32))


def test_a_probe_that_fills_the_window_needs_the_whole_patch() -> None:
    small, wide = np.zeros((2, 1, 32, 32), np.complex64)
    small[0, 12:21, 12:21] = 1
    wide[0, 2:30, 2:30] = 1
    assert suggest_reduction(small, (32, 32)) == 2
    assert suggest_reduction(wide, (32, 32)) == 1


@given(
    seed=st.integers(0, 2**32 - 1),
    frames=st.integers(20, 200),
    fraction=st.floats(0.02, 0.4),
    side=st.sampled_from(sorted(SIDES)),
    size=st.sampled_from([16, 17, 32]),
)
@settings(deadline=None, max_examples=60)
def test_held_out_and_training_labels_share_no_object_pixel(
    seed: int, frames: int, fraction: float, side: str, size: int
) -> None:
    positions = np.random.default_rng(seed).uniform(-80, 80, (frames, 2)) * PIXEL
    try:
        split = spatial_split(positions, label_extent_m(size, PIXEL), fraction, side)
    except TrainingError:
        return  # nothing was far enough away
    assert sorted(np.concatenate([split.train, split.held_out, split.gap])) == list(range(frames))
    assert len(split.held_out) == max(1, round(fraction * frames))
    read = np.zeros((400, 400), np.int8)  # what each label's interpolation reads, drawn pixel by pixel
    for label, chosen in ((1, split.train), (2, split.held_out)):
        for x, y in positions[chosen] / PIXEL + 200:
            top, left = (int(np.floor(v)) - size // 2 for v in (y, x))
            reach = INTERPOLATION_MARGIN
            box = read[top - reach + 1 : top + size + reach, left - reach + 1 : left + size + reach]
            assert not (box == 3 - label).any()
            box[...] = label


def test_a_split_that_leaves_nothing_is_refused() -> None:
    positions = np.random.default_rng(0).uniform(0, 10, (50, 2)) * PIXEL
    with pytest.raises(TrainingError, match="no frame is"):
        spatial_split(positions, label_extent_m(32, PIXEL), 0.2)
    with pytest.raises(TrainingError, match="fraction"):
        spatial_split(positions, 1e-9, 1.5)


def test_the_held_out_area_is_covered_and_touched_by_no_label() -> None:
    scan, truth = small_scan()
    split = spatial_split(scan.positions_m, label_extent_m(16, truth.pixel_m), 0.2)
    area = held_out_area(truth, scan.positions_m[split.train], 16)
    assert area.any()
    assert truth.coverage[area].min() > 0
    labelled = label_area(truth, scan.positions_m[split.train], 16)
    assert not (area & labelled).any()
    first = (scan.positions_m[split.train][0] - truth.origin_m) / truth.pixel_m
    assert labelled[int(first[1]), int(first[0])]


def test_the_corpus_is_what_the_edge_will_see() -> None:
    scan, truth = small_scan()
    frames = np.arange(5, 25)
    corpus = build_corpus([Source(scan, truth, frames)], (16, 16))
    assert len(corpus) == corpus.measured == 20
    assert corpus.counts.dtype == np.uint16
    bad = corpus.preprocessing.bad_pixels.unpack()
    np.testing.assert_array_equal(corpus.counts[0], np.where(bad, 0, scan.counts[5]))
    np.testing.assert_array_equal(corpus.phase, make_labels(truth, truth.positions_m[frames], (16, 16)).phase)
    cropped = build_corpus([Source(scan, truth, frames)], (8, 8), Preprocessing(crop=(8, 8, 16, 16)))
    assert cropped.input_shape == (16, 16)


def test_frames_without_counts_or_position_are_left_out() -> None:
    scan, truth = small_scan()
    counts, positions = scan.counts.copy(), truth.positions_m.copy()
    counts[3] = 0
    positions[7] = np.nan
    dark = dataclasses.replace(scan, counts=counts)
    source = Source(dark, dataclasses.replace(truth, positions_m=positions))
    corpus = build_corpus([source], (16, 16))
    assert corpus.measured == len(scan) - 2
    kept = [i for i in range(len(scan)) if i not in (3, 7)]
    np.testing.assert_array_equal(corpus.counts[3], build_corpus([Source(scan, truth)], (16, 16)).counts[kept][3])


class CountedReads:
    """The patterns of a scan, and how often each was read."""

    def __init__(self, counts: np.ndarray) -> None:
        self._counts, self.shape, self.dtype = counts, counts.shape, counts.dtype
        self.reads = np.zeros(len(counts), int)

    def __len__(self) -> int:
        return len(self._counts)

    def __getitem__(self, frame: int) -> np.ndarray:
        self.reads[frame] += 1
        return np.asarray(self._counts[frame])


@pytest.mark.parametrize("hot", [False, True], ids=["its mask alone", "a mark that the preprocessing does not know"])
def test_what_is_measured_is_read_once_for_the_corpus(hot: bool) -> None:
    scan, truth = small_scan()
    counts = scan.counts.copy()
    counts[11] = 0  # dark
    if hot:
        counts[:, 2, 3] = np.iinfo(counts.dtype).max - 1
    given = dataclasses.replace(scan, counts=counts)
    spec = default_preprocessing([scan])
    held_out = np.arange(60, 70)
    source = Source(given, truth, np.arange(5, 55), held_out)
    expected = measured(source, spec)
    noted = CountedReads(counts)
    (kept,), corpus = measured_corpus(
        [dataclasses.replace(source, scan=dataclasses.replace(given, counts=noted))], (16, 16), spec
    )
    np.testing.assert_array_equal(kept.selected, expected.selected)
    np.testing.assert_array_equal(kept.held_out, held_out)
    assert 11 not in kept.selected and len(kept.selected) == 49
    plain = build_corpus([expected], (16, 16), spec)
    for name in ("counts", "phase", "amplitude", "weights", "source"):
        np.testing.assert_array_equal(getattr(corpus, name), getattr(plain, name))
    assert corpus.counts.dtype == plain.counts.dtype
    looked = CountedReads(counts)
    measured_input(dataclasses.replace(given, counts=looked), spec)  # the sample that the limits follow from
    extra = noted.reads - looked.reads
    assert (extra[kept.selected] == 1).all() and (extra[held_out] == 1).all()


def test_scans_of_one_geometry_are_joined_and_of_two_refused() -> None:
    first, second = small_scan(), small_scan(seed=1)
    corpus = build_corpus([Source(*first), Source(*second)], (16, 16))
    assert corpus.measured == 160
    assert set(corpus.source) == {0, 1}
    assert corpus.scans == ("small-0", "small-1")
    both = default_preprocessing([first[0], second[0]]).bad_pixels.unpack()
    np.testing.assert_array_equal(both, first[0].bad_pixels | second[0].bad_pixels)
    other = dataclasses.replace(second[1], pixel_m=second[1].pixel_m * 1.1)
    with pytest.raises(TrainingError, match="object pixel"):
        build_corpus([Source(*first), Source(second[0], other)], (16, 16))
    with pytest.raises(TrainingError, match="reconstruction is of scan small-1"):
        build_corpus([Source(first[0], second[1])], (16, 16))
    with pytest.raises(TrainingError, match="no frames"):
        build_corpus([Source(*first, frames=np.arange(0))], (16, 16))


def test_normalised_roots_have_mean_0_and_deviation_1() -> None:
    counts = small_scan()[0].counts
    n = measure_normalisation(counts)
    root = np.sqrt(counts * n.scale) * n.gain + n.offset
    assert root.mean() == pytest.approx(0, abs=1e-5)
    assert root.std() == pytest.approx(1, abs=1e-5)
    with pytest.raises(TrainingError, match="no counts"):
        measure_normalisation(np.zeros((3, 8, 8), np.uint16))


def test_simulated_patterns_look_like_measured_ones() -> None:
    scan, truth = small_scan()
    source = Source(scan, dataclasses.replace(truth, probe=truth.probe * 5))  # of no unit in particular
    spec = default_preprocessing([scan])
    drawn = Simulator(source, (16, 16), spec).draw(200, np.random.default_rng(0))
    counts = drawn.counts
    assert counts.shape == (200, 32, 32)
    assert drawn.phase.shape == drawn.amplitude.shape == (200, 16, 16)
    assert not counts[:, scan.bad_pixels].any()
    good = ~scan.bad_pixels
    measured, simulated = (c.astype(float).mean(axis=0)[good] for c in (scan.counts, counts))
    assert simulated.sum() == pytest.approx(measured.sum(), rel=0.1)
    assert np.corrcoef(np.sqrt(measured), np.sqrt(simulated))[0, 1] > 0.9


def test_a_pattern_belongs_to_its_patch_in_every_symmetry() -> None:
    """The patch of a simulated pair, put under the probe, gives the pair's own pattern and none of the others."""
    scan, truth = small_scan()
    source = Source(scan, truth)
    drawn = Simulator(source, (32, 32), Preprocessing()).draw(24, np.random.default_rng(1))
    patches = drawn.amplitude * np.exp(1j * drawn.phase)
    slope = flatten(truth).slope
    rows, columns = np.indices((32, 32))
    probe = truth.probe * np.exp(1j * (slope[0] * rows + slope[1] * columns))
    expected = np.sqrt(diffract(probe, patches)).reshape(24, -1)
    found = np.sqrt(np.where(scan.bad_pixels, 0, drawn.counts)).reshape(24, -1)
    alike = np.corrcoef(expected, found)[:24, 24:]
    assert (alike.argmax(axis=1) == np.arange(24)).all()


def test_the_eight_symmetries_differ() -> None:
    image = np.arange(9).reshape(3, 3)
    assert len({turn(image, k).tobytes() for k in range(SYMMETRIES)}) == 8
    np.testing.assert_array_equal(turn(image, 0), image)


def test_simulated_patches_stay_in_the_area_trained_on() -> None:
    scan, truth = small_scan()
    split = spatial_split(scan.positions_m, label_extent_m(16, truth.pixel_m), 0.2)
    marked = truth.object.copy()
    marked[~label_area(truth, scan.positions_m[split.train], 16)] *= 0.001  # would be seen in any label
    source = Source(scan, dataclasses.replace(truth, object=marked), split.train)
    honest = flatten(source.reconstruction).object
    corpus = add_simulated(build_corpus([source], (16, 16)), [source], 2.0, seed=0)
    assert len(corpus) == 3 * corpus.measured
    inside = np.abs(honest[np.abs(marked) > 0.01]).min()
    drawn = Simulator(source, (16, 16), corpus.preprocessing).draw(100, np.random.default_rng(0))
    assert drawn.amplitude.min() >= inside


@pytest.mark.parametrize("mean", [0.0, 0.02, 0.7, 5.0, 300.0])
def test_simulated_counts_are_poisson_distributed(mean: float) -> None:
    counts = poisson(np.full((400, 250), mean), np.random.default_rng(4))
    seen = np.bincount(counts.ravel())
    expected = stats.poisson.pmf(np.arange(len(seen)), mean) * counts.size
    enough = expected > 20
    chi2 = ((seen - expected)[enough] ** 2 / expected[enough]).sum()
    assert chi2 < enough.sum() + 5 * np.sqrt(2 * enough.sum())


def test_simulation_needs_patterns_of_the_probes_shape() -> None:
    scan, truth = small_scan()
    source = Source(dataclasses.replace(scan, counts=scan.counts[:, :16, :16]), truth)
    with pytest.raises(TrainingError, match="frames of"):
        Simulator(source, (8, 8), Preprocessing()).draw(3, np.random.default_rng(0))


def test_holding_out_takes_memory_in_proportion_to_the_frames() -> None:
    positions = np.random.default_rng(4).uniform(0, 1e-5, (3_000, 2))
    tracemalloc.start()
    try:
        split = spatial_split(positions, 1e-6, 0.3)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 200 * len(positions), "2,100 × 900 distances would take 15 MB and more"
    rest = np.setdiff1d(np.arange(len(positions)), split.held_out)
    distance = np.abs(positions[rest, None] - positions[None, split.held_out]).max(axis=2).min(axis=1)
    np.testing.assert_array_equal(split.gap, rest[distance < 1e-6])
