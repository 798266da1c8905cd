"""Positions by trigger or frame index: the right places or none, however the updates are cut and the frames come."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ptychostream.errors import DropCause, GeometryError
from ptychostream.frames.frames import Frame
from ptychostream.positions.indexed_positions import IndexedPositions, IndexPositionSettings
from ptychostream.positions.join import Join, Joined
from ptychostream.positions.positions import AxisConfig, NeverPlaced

NO_COUNTS = np.zeros((1, 1), np.uint16)
EPOCH = 1.7e9


def frame(number: int, run: int = 1, received: float = 0.0, scan: str = "") -> Frame:
    return Frame(scan or f"scan {run}", number, EPOCH, NO_COUNTS, {}, received, run)


def source(now: float = 0.0, **values: Any) -> IndexedPositions:
    values.setdefault("first_frame_id", 0)
    return IndexedPositions(IndexPositionSettings.model_validate(values), now=lambda: now)


def places(scan: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    """No two scans, and no two samples of one, share a place."""
    return scan * 1e-3 + 1e-6 * np.arange(count), scan * 1e-3 - 1e-6 * np.arange(count)


class Taken:
    def __init__(self) -> None:
        self.at: dict[tuple[int, int], tuple[float, float]] = {}
        self.dropped: set[tuple[int, int]] = set()

    def take(self, out: Joined) -> None:
        self.at.update({(one.frame.run, one.frame.id): (one.x_m, one.y_m) for one in out.placed})
        assert all(cause is DropCause.NO_POSITION for _, cause in out.dropped)
        self.dropped |= {(one.run, one.id) for one, _ in out.dropped}


# ---------------------------------------------------------------- properties


@pytest.mark.slow
@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.integers(1, 30), min_size=1, max_size=4),
    st.integers(1, 4),
    st.sampled_from(["mean", "middle"]),
    st.booleans(),
    st.sampled_from(["no", "scan", "arm"]),
    st.data(),
)
def test_any_split_of_the_updates_and_any_order_of_the_frames(
    sizes: list[int], per_frame: int, combine: str, twice: bool, named: str, data: st.DataObject
) -> None:
    """Several scans one after the other; the updates of each are cut anywhere, its frames come in any order."""
    by_index = source(samples_per_frame=per_frame, combine=combine)
    join, taken = Join(by_index, 10_000), Taken()
    for scan, size in enumerate(sizes, 1):
        x, y = places(scan, size * per_frame)
        order = data.draw(st.permutations(range(size)))
        cuts = sorted(data.draw(st.lists(st.integers(0, len(x)), max_size=6)))
        waiting = list(order)
        names = {"scan": {"scan": f"scan {scan}"}, "arm": {"arm": str(scan)}, "no": {}}[named]
        for part in np.split(np.arange(len(x)), cuts):
            for _ in range(data.draw(st.integers(0, 3))):
                if waiting:
                    taken.take(join.add(frame(waiting.pop(), scan)))
            if len(part):
                for _ in range(2 if twice and data.draw(st.booleans()) else 1):
                    by_index.update(part[0], x[part], y[part], **names)
            taken.take(join.poll())
        for number in waiting:
            taken.take(join.add(frame(number, scan)))
        taken.take(join.poll())
        taken.take(join.give_up(lambda one, scan=scan: one.run == scan))
    counts = by_index.counts
    assert counts.conflicting == counts.late == counts.bad == 0
    assert counts.received == by_index.held + counts.duplicate
    assert counts.restarts == len(sizes) - 1
    for scan, size in enumerate(sizes, 1):
        x, y = (axis.reshape(size, per_frame).mean(axis=1) for axis in places(scan, size * per_frame))
        for number in range(size):  # even steps: the mean is the middle
            assert taken.at[scan, number] == pytest.approx((x[number], y[number]), abs=1e-15)


@pytest.mark.slow
@settings(max_examples=100, deadline=None)
@given(st.integers(20, 60), st.integers(-40, 2**31), st.integers(0, 15), st.randoms(use_true_random=False))
def test_the_scans_first_frame_is_found_among_frames_that_overtake(
    size: int, first: int, disorder: int, random: Any
) -> None:
    by_index = source(first_frame_id=None)
    join, taken = Join(by_index, 1000), Taken()
    order = sorted(range(size), key=lambda number: number + random.uniform(0, disorder))
    x, y = places(1, size)
    for step, number in enumerate(order):
        taken.take(join.add(frame(first + number)))
        by_index.update(step, x[step : step + 1], y[step : step + 1])
        taken.take(join.poll())
    assert taken.at == {(1, first + number): (x[number], y[number]) for number in range(size)}


# ---------------------------------------------------------------- which series belongs to which scan


@pytest.mark.parametrize("first", ["frames", "positions"])
@pytest.mark.parametrize("known", [True, False])
def test_the_next_scan_takes_the_next_series_or_none(first: str, known: bool) -> None:
    by_index, at = source(now=EPOCH), EPOCH if known else 0.0
    join, taken = Join(by_index, 1000), Taken()
    for scan in (1, 2):
        x, y = places(scan, 50)
        begin = at and at + 100 * scan
        for what in ("frames", "positions") if first == "frames" else ("positions", "frames"):
            if what == "positions":
                by_index.update(0, x, y, arrival=begin and begin + 1)
            else:
                for number in range(50):
                    taken.take(join.add(frame(number, scan, begin and begin + 2)))
            taken.take(join.poll())
    third = frame(3, 3, at and at + 300)
    assert by_index.lookup(third) is None
    assert by_index.waits == "frame 3: no arm of the position source has begun for it"
    assert len(taken.at) == 100
    for (scan, number), place in taken.at.items():
        assert place == tuple(axis[number] for axis in places(scan, 50))


def test_an_arm_without_frames_places_no_later_scan() -> None:
    """A dry run long before; and an arm that began while the scan before still went on."""
    by_index = source()
    by_index.update(0, *places(1, 10), arrival=EPOCH)
    assert by_index.lookup(frame(0, 1, EPOCH + 60)) is None
    by_index.update(0, *places(2, 10), arrival=EPOCH + 61)
    assert by_index.lookup(frame(0, 1, EPOCH + 60)) == (2e-3, 2e-3)
    by_index.update(0, *places(3, 10), arrival=EPOCH + 65)
    with pytest.raises(NeverPlaced, match=r"began anew after 10 samples.*frames_per_arm"):
        by_index.lookup(frame(10, 1, EPOCH + 66))
    assert by_index.lookup(frame(0, 2, EPOCH + 68)) is None
    by_index.update(0, *places(4, 10), arrival=EPOCH + 69)
    assert by_index.lookup(frame(0, 2, EPOCH + 68)) == (4e-3, 4e-3)
    assert by_index.lookup(frame(9, 1, EPOCH + 69)) == pytest.approx((2e-3 + 9e-6, 2e-3 - 9e-6))


@pytest.mark.parametrize("frames", [5, 20])
@pytest.mark.parametrize("first", [None, 0])
def test_frames_that_are_looked_up_late_are_placed_by_the_arm_that_went_on_when_they_came(
    frames: int, first: int | None
) -> None:
    """A busy process hears of the next arm before it gets to the frames of this one."""
    by_index = source(EPOCH + 100, first_frame_id=first)
    for scan in (1, 2):
        by_index.update(0, *places(scan, frames), arrival=EPOCH + 10 * scan)
    join, taken = Join(by_index, 1000), Taken()
    for scan in (1, 2):
        for number in range(frames):
            taken.take(join.add(frame(number, scan, EPOCH + 10 * scan + 0.1 + 0.01 * number)))
        taken.take(join.poll())
    assert taken.at == {
        (scan, number): tuple(axis[number] for axis in places(scan, frames))
        for scan in (1, 2)
        for number in range(frames)
    }


def test_frames_that_came_before_two_arms_take_the_first_of_them() -> None:
    by_index = source()
    for scan in (1, 2):
        by_index.update(0, *places(scan, 10), arrival=EPOCH + 10 * scan)
    assert by_index.lookup(frame(0, 1, EPOCH + 9)) == (1e-3, 1e-3)
    assert by_index.lookup(frame(0, 2, EPOCH + 19)) == (2e-3, 2e-3)


def test_a_stream_that_names_the_scan_is_bound_by_the_name() -> None:
    by_index = source()
    for scan in (1, 2, 3):
        by_index.update(0, *places(scan, 10), scan=f"S{scan}", arrival=EPOCH)  # all of them long before
    for run, scan in ((1, 2), (2, 1), (3, 3)):
        assert by_index.lookup(frame(5, run, EPOCH + 900, f"S{scan}"))[0] == pytest.approx(scan * 1e-3 + 5e-6)
    assert by_index.lookup(frame(5, 4, EPOCH + 900, "S4")) is None
    by_index.update(0, *places(7, 10), scan="S1")  # the scan again
    assert by_index.lookup(frame(5, 5, EPOCH + 900, "S1"))[0] == pytest.approx(7e-3 + 5e-6)


def test_an_arm_for_every_line() -> None:
    by_index = source(frames_per_arm=101)
    join, taken = Join(by_index, 5000), Taken()
    for line in range(11):
        x, y = places(line + 1, 101)
        for begin in range(0, 101, 20):
            by_index.update(begin, x[begin : begin + 20], y[begin : begin + 20])
            for number in range(begin, min(begin + 20, 101)):
                taken.take(join.add(frame(101 * line + number)))
            taken.take(join.poll())
    assert by_index.counts.restarts == 10
    assert len(taken.at) == 1111
    for (_, number), place in taken.at.items():
        line, at = divmod(number, 101)
        assert place == tuple(axis[at] for axis in places(line + 1, 101))


def test_after_a_line_with_a_sample_too_few_nothing_is_placed() -> None:
    by_index = source(frames_per_arm=10)
    for line, count in ((1, 10), (2, 9), (3, 10)):
        by_index.update(0, *places(line, count))
    assert by_index.lookup(frame(18)) is not None
    with pytest.raises(NeverPlaced, match=r"has not come|began anew"):
        by_index.lookup(frame(19))
    with pytest.raises(NeverPlaced, match="an arm of its scan had 9 samples in place of 10"):
        by_index.lookup(frame(20))


# ---------------------------------------------------------------- faults


def test_a_repeat_with_another_place_is_a_fault_and_no_duplicate() -> None:
    by_index = source()
    x, y = places(1, 10)
    by_index.update(0, x, y)
    by_index.update(5, x[5:], y[5:])
    assert (by_index.counts.duplicate, by_index.counts.conflicting) == (5, 0)
    by_index.update(7, x[7:] + 1e-9, y[7:])
    assert (by_index.counts.duplicate, by_index.counts.conflicting, by_index.counts.restarts) == (5, 3, 0)
    assert by_index.lookup(frame(6)) == (x[6], y[6])
    for number in (7, 8, 9):
        with pytest.raises(NeverPlaced, match=f"frame {number}: two different positions were sent for its index"):
            by_index.lookup(frame(number))
    by_index.update(9, x[9:], y[9:], arm="another")
    assert by_index.counts.restarts == 1


def test_a_place_that_is_no_number_is_none() -> None:
    by_index = source(samples_per_frame=2)
    by_index.update(0, [1.0, np.nan, 3.0, 5.0], [0.0, 0.0, 0.0, 0.0])
    assert by_index.counts.bad == 1
    with pytest.raises(NeverPlaced, match="not a number"):
        by_index.lookup(frame(0))
    assert by_index.lookup(frame(1)) == (4.0, 0.0)
    by_index.update(1, [np.nan], [0.0])
    assert by_index.counts.duplicate == 1


def test_a_hole_waits_and_is_never_placed_when_no_more_comes() -> None:
    by_index = source()
    by_index.update(0, *places(1, 3))
    by_index.update(5, *places(2, 3))
    assert by_index.lookup(frame(4)) is None
    by_index.complete()
    with pytest.raises(NeverPlaced, match="has not come"):
        by_index.lookup(frame(4))
    by_index.update(3, [7.0, 8.0], [0.0, 0.0])
    assert by_index.lookup(frame(4)) == (8.0, 0.0)


def test_a_first_frame_that_was_none_is_told_and_places_no_more() -> None:
    by_index = source(first_frame_id=None)
    by_index.update(0, *places(1, 100))
    for number in range(5, 21):
        by_index.lookup(frame(number))
    assert by_index.lookup(frame(6)) is not None
    for number in (4, 30):
        with pytest.raises(NeverPlaced, match="taken to be 5, and then frame 4 came: give first_frame_id"):
            by_index.lookup(frame(number))


def test_few_frames_have_their_first_one_after_a_while() -> None:
    now = [EPOCH]
    by_index = IndexedPositions(now=lambda: now[0])
    by_index.update(0, *places(1, 3), arrival=EPOCH)
    assert by_index.lookup(frame(1001, received=EPOCH)) is None
    now[0] += 1.0
    assert by_index.lookup(frame(1000, received=EPOCH)) == (1e-3, 1e-3)
    assert by_index.lookup(frame(1001, received=EPOCH)) == pytest.approx((1e-3 + 1e-6, 1e-3 - 1e-6))


def test_a_late_start_is_placed_by_index() -> None:
    by_index = source(samples_per_frame=10)
    by_index.begin(arm="2026-11-29T10:00:00Z", never_before=18_006_889)
    by_index.update(18_006_889, np.arange(31.0), np.zeros(31), arm="2026-11-29T10:00:00Z")
    with pytest.raises(NeverPlaced, match="before anyone listened"):
        by_index.lookup(frame(1_800_688))
    assert by_index.lookup(frame(1_800_689)) == (np.arange(1.0, 11.0).mean(), 0.0)
    assert by_index.lookup(frame(1_800_692)) is None


# ---------------------------------------------------------------- bounds


@pytest.mark.slow
def test_memory_is_bounded_over_one_long_series_and_over_many_short_ones() -> None:
    by_index = source(capacity=1000)
    for first in range(0, 10_000, 7):
        by_index.update(first, np.arange(7.0) + first, np.zeros(7))
        assert by_index.held <= 1000
    assert by_index.lookup(frame(9995)) == (9995.0, 0.0)
    with pytest.raises(NeverPlaced, match="no longer in memory: raise the capacity"):
        by_index.lookup(frame(5))
    by_index.update(2**50, [1.0], [2.0])  # a jump takes no memory
    assert by_index.held == 1
    for arm in range(500):
        by_index.update(0, *places(arm, 100), arm=str(arm))
        assert by_index.held <= 1000
    by_index.update(100, np.arange(5000.0), np.zeros(5000), arm="499")
    assert 0 < by_index.held <= 1000
    counts = by_index.counts
    assert counts.received == by_index.held + counts.forgotten + counts.duplicate + counts.conflicting + counts.late


# ---------------------------------------------------------------- layouts of the index


def test_an_index_for_every_sample_and_trigger_numbers() -> None:
    by_index = source(samples_per_frame=2, index_counts="frames", first_index=1)
    by_index.update([1, 1, 2, 2, 4, 4], [1.0, 3.0, 5.0, 7.0, 10.0, 12.0], np.zeros(6))
    assert [by_index.lookup(frame(number)) for number in (0, 1, 3)] == [(2.0, 0.0), (6.0, 0.0), (11.0, 0.0)]
    by_index.update(3, [8.0, 9.0], [0.0, 0.0])
    assert by_index.lookup(frame(2)) == (8.5, 0.0)


@pytest.mark.parametrize(
    ("index", "x", "y", "why"),
    [
        ([1, 1, 2], [0.0] * 3, [0.0] * 3, "1 samples of index 2, but a frame has 2"),
        (1, [0.0] * 3, [0.0] * 3, "3 samples from index 1, but a frame has 2"),
        (1, [0.0] * 3, [0.0] * 2, "shapes"),
        (1.5, [0.0] * 2, [0.0] * 2, r"index 1\.5"),
        (-1, [0.0] * 2, [0.0] * 2, "index -1"),
        (float("nan"), [0.0] * 2, [0.0] * 2, "index nan"),
        ([1e300], [0.0] * 2, [0.0] * 2, r"index 1e\+300"),
        (0, [0.0] * 2, [0.0] * 2, "index 0.*begin at first_index = 1"),
        ("a", [0.0], [0.0], "not numbers"),
    ],
)
def test_an_update_that_cannot_be_used_changes_nothing(index: Any, x: Any, y: Any, why: str) -> None:
    by_index = source(samples_per_frame=2, index_counts="frames", first_index=1)
    with pytest.raises(GeometryError, match=why):
        by_index.update(index, x, y)
    assert (by_index.counts.received, by_index.series) == (0, 0)


def test_axes_and_the_middle_of_several_samples() -> None:
    by_index = IndexedPositions(
        IndexPositionSettings(samples_per_frame=3, combine="middle", first_frame_id=0), AxisConfig(unit="um", sign_y=-1)
    )
    by_index.update(0, [0.0, 1.0, 9.0], [2.0, 3.0, 9.0])
    assert by_index.lookup(frame(0)) == pytest.approx((1e-6, -3e-6))


def test_frames_of_the_opening_leave_when_the_first_one_is_known() -> None:
    by_index = source(first_frame_id=None)
    join = Join(by_index, 100)
    by_index.update(0, *places(1, 30))
    out = [join.add(frame(number)) for number in range(20)]
    assert [len(one.placed) for one in out] == [0] * 15 + [16] + [1] * 4


def test_an_arm_that_ended_places_no_more_and_the_next_ones_frames_wait() -> None:
    by_index = source()
    by_index.update(0, *places(1, 10), arm="a")
    by_index.end()
    with pytest.raises(NeverPlaced, match="its position has not come"):
        by_index.lookup(frame(10))
    assert by_index.lookup(frame(0, 2)) is None
    by_index.begin(arm="a", never_before=12)  # the same arm: its connection was lost for two rows
    by_index.update(12, *places(2, 3), arm="a")
    assert by_index.lookup(frame(10)) is None
    assert by_index.lookup(frame(12)) == (2e-3, 2e-3)
    assert by_index.counts.restarts == 0


def test_a_restart_counts_as_one_within_a_scan_if_a_frame_of_it_comes_after() -> None:
    by_index = source()
    by_index.update(0, *places(1, 10), arrival=EPOCH)
    assert by_index.lookup(frame(9, 1, EPOCH + 1)) is not None
    assert by_index.lookup(frame(10, 1, EPOCH + 1.5)) is None  # beyond the arm's end: it waits
    by_index.update(0, *places(2, 10), arrival=EPOCH + 2)
    with pytest.raises(NeverPlaced, match="began anew"):
        by_index.lookup(frame(10, 1, EPOCH + 1.5))
    assert (by_index.counts.restarts, by_index.counts.restarts_in_scan) == (1, 0), "the next scan's arm"
    for number in (10, 11, 12):
        with pytest.raises(NeverPlaced, match="began anew"):
            by_index.lookup(frame(number, 1, EPOCH + 3))
    assert by_index.counts.restarts_in_scan == 1
    by_index.restart_counts()
    assert by_index.counts.restarts_in_scan == 0
