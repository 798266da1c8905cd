"""What of a frame is a measurement: marks, saturation, masks that cannot be right, dark and bright frames."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from ptychostream.errors import ScanFileError
from ptychostream.frames.measured_frames import FrameFault, frame_limits
from ptychostream.frames.measured_pixels import (
    Constants,
    find_marks,
    highest_count,
    is_count,
    mask_fault,
    proposed_saturation,
)
from ptychostream.frames.survey import survey
from ptychostream.model.contract import Preprocessing
from ptychostream.model.preprocessing import Preprocessor, refined
from ptychostream.scans.scan import Scan
from ptychostream.scans.scan_files import open_scan

SIDE = 32


def patterns(frames: int = 16, dtype: str = "uint32", dose: float = 2e4, seed: int = 1) -> NDArray[np.integer]:
    """A bright middle that fades, with photon noise, as a diffraction pattern has it."""
    y, x = np.indices((SIDE, SIDE)) - SIDE // 2
    shape = np.exp(-(x**2 + y**2) / 50.0) + 1e-3
    random = np.random.default_rng(seed)
    return random.poisson(dose * shape / shape.sum(), (frames, SIDE, SIDE)).astype(dtype)


@pytest.mark.parametrize(
    ("dtype", "given", "highest"),
    [
        ("uint8", {}, 254),
        ("uint16", {}, 65534),
        ("int16", {}, 32766),
        ("uint32", {}, 2**32 - 3),
        ("int32", {}, 2**31 - 3),
        ("uint64", {}, 2**64 - 3),
        ("uint16", {"saturation": 4095}, 4094),
        ("uint16", {"bit_depth": 12}, 4094),
        ("uint32", {"bit_depth": 16}, 65534),
        ("uint32", {"bit_depth": 16, "saturation": 60000}, 59999),
        ("uint16", {"maximum_is_mark": False}, 65535),
        ("uint16", {"saturation": 10**9}, 65534),
    ],
)
def test_the_largest_count_of_a_type(dtype: str, given: dict[str, int], highest: int) -> None:
    assert highest_count(dtype, **given) == highest  # type: ignore[arg-type]
    values = np.array([0, 1, highest], dtype)
    assert is_count(values, highest).all()


def test_negative_values_are_no_counts() -> None:
    assert is_count(np.array([-2, -1, 0, 5], "int32"), 4).tolist() == [False, False, True, False]


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(
    value=st.one_of(
        st.sampled_from([65535, 65534, 2**24 - 1, 1_000_000, 2**31 - 1, 2**32 - 3]), st.integers(3000, 2**32 - 3)
    ),
    places=st.sets(st.integers(0, SIDE**2 - 1), min_size=1, max_size=SIDE**2 // 3),
    frames=st.integers(3, 32),
    seed=st.integers(0, 2**16),
)
def test_a_huge_constant_value_is_a_mark_whatever_it_is(value: int, places: set[int], frames: int, seed: int) -> None:
    counts = patterns(frames, seed=seed)
    wanted = np.zeros(SIDE**2, bool)
    wanted[list(places)] = True
    wanted = wanted.reshape(SIDE, SIDE)
    counts[:, wanted] = value
    found = find_marks(counts, highest_count(counts.dtype))
    np.testing.assert_array_equal(found.pixels, wanted)
    assert found.values == (value,)


@settings(max_examples=40, deadline=None)
@given(
    frames=st.integers(1, 40),
    dose=st.floats(10, 1e7),
    dtype=st.sampled_from(["uint16", "int32", "uint32", "int64"]),
    seed=st.integers(0, 2**16),
)
def test_photons_are_no_marks(frames: int, dose: float, dtype: str, seed: int) -> None:
    counts = np.minimum(patterns(frames, "int64", dose, seed), highest_count(dtype) // 2).astype(dtype)
    if counts.max() < highest_count(dtype) // 2:  # else it is saturated
        assert find_marks(counts, highest_count(dtype)).number == 0


def test_a_few_glitches_do_not_hide_a_mark() -> None:
    counts = patterns(32)
    counts[:, 4, 4], counts[:, 20:22] = 65535, 40_000
    expected = find_marks(counts, highest_count(counts.dtype))
    assert expected.number == 1 + 2 * SIDE
    counts[[0, 9]] = 0  # lost, marks included
    counts[17] = 2**32 - 1
    counts[23] *= 500
    counts[31] = np.random.default_rng(0).poisson(0.01, (SIDE, SIDE))
    found = find_marks(counts, highest_count(counts.dtype))
    np.testing.assert_array_equal(found.pixels, expected.pixels)


def test_one_frame_tells_a_mark_only_by_a_value_that_read_outs_use() -> None:
    counts = patterns(1)
    counts[:, 3, 4], counts[:, 5, 6] = 65535, 2**32 - 2
    assert np.argwhere(find_marks(counts, highest_count(counts.dtype)).pixels).tolist() == [[3, 4], [5, 6]]
    counts[:, 3, 4] = 60001
    assert np.argwhere(find_marks(counts, highest_count(counts.dtype)).pixels).tolist() == [[5, 6]]


def test_frames_that_are_one_picture_do_not_tell() -> None:
    same = np.repeat(patterns(1), 12, axis=0)
    same[:, 0, 0] = 50_000
    assert find_marks(same, highest_count(same.dtype)).number == 0
    assert find_marks(np.full((12, 4, 4), 7, np.uint16), 65534).number == 0
    assert Constants().marks(65534) is None


def test_a_constant_value_that_is_no_count_is_a_mark_too() -> None:
    counts = patterns(12, "int32")
    counts[:, 2], counts[:, 7, 7], counts[3, 9, 9] = -1, 2**31 - 1, -1
    found = find_marks(counts, highest_count(counts.dtype))
    assert found.number == SIDE + 1
    assert found.values == (-1, 2**31 - 1)


def test_the_mask_is_not_searched_again() -> None:
    counts = patterns()
    counts[:, :2] = 70_000
    known = np.zeros((SIDE, SIDE), bool)
    known[0] = True
    found = find_marks(counts, highest_count(counts.dtype), known)
    assert found.number == SIDE
    assert not found.pixels[0].any()


def test_in_pieces_as_in_one() -> None:
    counts = patterns(9)
    counts[:, 4, 4] = 65535
    constants = Constants()
    for piece in np.array_split(counts, 4):
        constants.add(piece)
    found = constants.marks(highest_count(counts.dtype))
    assert found is not None
    np.testing.assert_array_equal(found.pixels, find_marks(counts, highest_count(counts.dtype)).pixels)


@pytest.mark.parametrize("level", [1023, 4095, 3967])
def test_a_saturation_is_proposed_where_many_pixels_share_the_maximum(level: int) -> None:
    counts = np.minimum(patterns(dose=1e6, dtype="int64"), level).astype(np.uint16)
    good = np.ones((SIDE, SIDE), bool)
    assert proposed_saturation(counts, good) == level
    unsaturated = patterns(dose=1e5, dtype="uint16")
    assert proposed_saturation(unsaturated, good) is None
    assert proposed_saturation(unsaturated[:, :1, :1] * 0, good[:1, :1]) is None


@settings(max_examples=40, deadline=None)
@given(bad=st.floats(0, 1), seed=st.integers(0, 1000))
def test_a_mask_and_its_inverse_are_never_both_believed(bad: float, seed: int) -> None:
    mask = np.random.default_rng(seed).random((SIDE, SIDE)) < bad
    assert mask_fault(mask) or mask_fault(~mask) or mask.mean() == 0.5


def test_a_mask_with_most_of_the_counts_is_refused_but_not_one_of_hot_pixels() -> None:
    mean = patterns(64).mean(axis=0)
    signal = mean > 30
    assert signal.mean() < 0.5
    assert "of the counts bad" in mask_fault(signal, mean)
    hot = np.zeros((SIDE, SIDE), bool)
    hot[::9, ::9] = True
    assert not mask_fault(hot, np.where(hot, 1e6, mean))
    assert not mask_fault(np.zeros((SIDE, SIDE), bool), mean)
    assert "97% of the pixels" in mask_fault(np.arange(1000).reshape(25, 40) < 970)


def test_dark_and_bright_frames() -> None:
    sums = np.random.default_rng(1).poisson(2e4, 60).astype(float)
    limits = frame_limits(sums)
    assert limits.measured(sums).all()
    assert limits.median == pytest.approx(2e4, rel=0.02)
    for total, fault in ((0.0, FrameFault.DARK), (60.0, FrameFault.DARK), (1e7, FrameFault.BRIGHT)):
        assert limits.fault(total) is fault
        assert fault.value in limits.describe(total)
        assert not limits.measured(np.array([total]))[0]
    assert "no counts" in limits.describe(0.0)
    assert "60 counts, the usual are 2e+04" in limits.describe(60.0)
    assert limits.fault(float("nan")) is FrameFault.DARK


@settings(max_examples=60, deadline=None)
@given(
    factor=st.floats(100, 1e6),
    few=st.integers(1, 12),
    dose=st.floats(1e3, 1e9),
    spread=st.floats(0, 0.2),
    seed=st.integers(0, 1000),
)
def test_a_few_glitches_are_found_whatever_the_dose(
    factor: float, few: int, dose: float, spread: float, seed: int
) -> None:
    random = np.random.default_rng(seed)
    sums = dose * np.exp(random.normal(0, spread, 60))
    chosen = random.choice(60, few, replace=False)
    bright, dark = sums.copy(), sums.copy()
    bright[chosen] *= factor
    dark[chosen] /= factor
    for totals in (bright, dark):
        assert np.flatnonzero(~frame_limits(totals).measured(totals)).tolist() == sorted(chosen)


def test_sums_that_differ_by_nature_are_measurements() -> None:
    bragg = np.exp(np.random.default_rng(2).normal(8, 1.2, 400))
    assert frame_limits(bragg).measured(bragg).all()


def test_few_frames_are_judged_by_the_dose_that_is_known() -> None:
    assert frame_limits([5.0, 1e4]).measured(np.array([5.0, 1e4])).all()
    limits = frame_limits([5.0, 1e4], expected=1e4)
    assert limits.measured(np.array([5.0, 100.0, 1e4])).tolist() == [False, True, True]
    assert "5 counts, the least are 10 by the dose that the model was trained at" in limits.describe(5.0)
    shutter_late = np.r_[np.full(40, 8.0), np.full(10, 1e4)]
    assert frame_limits(shutter_late, expected=1e4).measured(shutter_late).sum() == 10


def test_both_limits_can_be_switched_off() -> None:
    limits = frame_limits([100.0] * 20, expected=1e9, dark_share=0, bright_factor=0)
    assert limits.measured(np.array([1e-3, 1e12])).all()
    assert limits.fault(0.0) is FrameFault.DARK
    assert limits.high == math.inf


@pytest.mark.parametrize(("bits", "level"), [(12, 4095), (16, None), (32, None)])
def test_the_bit_depth_of_a_file_is_one_limit_for_every_door(bits: int, level: int | None) -> None:
    """`reconstruct` goes by `highest`; `infer`, `train`, the agent and the edge by the preprocessing."""
    random = np.random.default_rng(3)
    frames = random.poisson(40, (12, 16, 16)).astype(np.uint16)
    frames[::3, 5, 7] = 4095
    scan = Scan("s", frames, random.uniform(0, 1e-6, (12, 2)), 1e4, 1.0, 1e-4)
    scan.said.state("bit_depth", bits, "bit_depth_readout")
    found = survey(scan)
    assert found.saturation == level
    spec = refined(Preprocessing(), found.bad_pixels, found.saturation)
    made = Preprocessor(spec, (16, 16), frames.dtype)
    kept = np.empty((12, 16, 16), np.float32)
    made.apply_all(list(frames), kept)
    assert (kept[::3, 5, 7] == 0).all() == (level is not None)
    assert (kept[::3, 5, 7] == 0).all() == (not found.counted(frames[::3])[:, 5, 7].any())


@pytest.mark.parametrize("dtype", ["int32", "float32"])
def test_a_background_that_was_subtracted_is_no_set_of_marks(dtype: str, tmp_path: Path) -> None:
    """A fifth of the values below 0 was taken for bad pixels, and what was left counted too high."""
    random = np.random.default_rng(4)
    counts = random.poisson(3, (40, 24, 24)).astype(dtype)
    geometry = {"energy_ev": 9e3, "distance_m": 1.5, "detector_pixel_m": 75e-6}
    places = {"positions_m": random.uniform(-2e-6, 2e-6, (40, 2))}
    gaps = counts.copy()
    gaps[:, 7:9], gaps[:, 3, 4] = -1, -2
    gaps[5] = 1  # a glitch, in the gaps as well
    for stored, refused in ((counts, False), (gaps, False), (counts - 2, True)):
        np.savez(tmp_path / "scan.npz", counts=stored, **places, **geometry)
        with open_scan(tmp_path / "scan.npz") as scan:
            if not refused:
                survey(scan)
                continue
            with pytest.raises(ScanFileError, match=r"\d+\.\d% of the values are below 0.*background was subtracted"):
                survey(scan)
