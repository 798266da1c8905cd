"""Ids unwrapped, duplicates seen, gaps counted, resets survived."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ptychostream.frames.frame_ids import DISORDER, WINDOW, FrameIds, edge

WIDTHS = [8, 16, 24, 31, 32]


def raw(number: int, bits: int) -> int:
    """What a counter of this width shows; 32 bits as areaDetector sends them, signed."""
    value = number % (1 << bits)
    return value - (1 << 32) if value >= 1 << 31 else value


def feed(ids: FrameIds, frames: list[tuple[int, float]]) -> list[int | None]:
    return [ids.accept(number, time) for number, time in frames]


@st.composite
def shuffled_runs(draw: st.DrawFn) -> tuple[int, int, list[int]]:
    """Width, first number and a gap-free run of numbers of which none is displaced by more than a few places."""
    bits = draw(st.sampled_from(WIDTHS))
    reach = draw(st.integers(0, 7))
    modulus = 1 << bits
    first = draw(st.one_of(st.just(0), st.integers(modulus - 40, modulus - 1), st.integers(0, modulus - 1)))
    length = draw(st.integers(1, 600 if bits == 8 else 80))
    rng = draw(st.randoms(use_true_random=False))
    order = sorted(range(length), key=lambda place: place + rng.uniform(0, reach + 0.999))
    return bits, first, [first + place for place in order]


@pytest.mark.slow
@settings(max_examples=150, deadline=None)
@given(shuffled_runs())
def test_a_shuffled_run_without_gaps_is_taken_whole(run: tuple[int, int, list[int]]) -> None:
    bits, _, numbers = run
    ids = FrameIds()
    result = feed(ids, [(raw(number, bits), 10 + number * 1e-3) for number in numbers])
    # Numbers are those of the first frame to arrive, carried on in both directions.
    offset = numbers[0] % (1 << bits) - numbers[0]
    assert result == [number + offset for number in numbers]
    assert (ids.missed, ids.resets) == (0, 0)
    highest = [max(numbers[: place + 1]) for place in range(len(numbers))]
    assert ids.disordered == sum(number < high for number, high in zip(numbers, highest, strict=True))


@pytest.mark.slow
@settings(max_examples=100, deadline=None)
@given(shuffled_runs(), st.data())
def test_gaps_are_counted_and_duplicates_are_not_taken_twice(
    run: tuple[int, int, list[int]], data: st.DataObject
) -> None:
    bits, _, numbers = run
    numbers = [number - numbers[0] + 1000 for number in numbers]  # away from any wrap but that of 8 bits
    bits = max(bits, 16)
    lost = data.draw(st.sets(st.sampled_from(numbers)))
    kept = [number for number in numbers if number not in lost]
    ids = FrameIds()
    accepted = []
    for number in kept:
        time = number * 1e-3
        accepted.append(ids.accept(raw(number, bits), time))
        again = data.draw(st.integers(0, len(accepted)))
        if again < len(accepted):
            assert ids.accept(raw(kept[again], bits), kept[again] * 1e-3) is None
    assert accepted == kept
    assert ids.missed == (max(kept) - min(kept) + 1 - len(kept) if kept else 0)
    assert ids.resets == 0


@pytest.mark.parametrize("bits", WIDTHS)
def test_a_wrap_with_losses_late_frames_and_duplicates_around_it(bits: int) -> None:
    modulus = 1 << bits
    near = edge(modulus) - 1
    ids = FrameIds()
    numbers = [modulus - near, modulus - 5, modulus - 1, modulus + 1, modulus, modulus - 2, modulus + 3]
    assert feed(ids, [(raw(n, bits), float(n)) for n in numbers]) == numbers
    assert ids.missed == (near + 4) - len(numbers)
    assert ids.accept(raw(modulus - 2, bits), float(modulus - 2)) is None
    assert ids.accept(raw(modulus + 1, bits), float(modulus + 1)) is None
    assert ids.accept(raw(2 * modulus - 1, bits), float(2 * modulus - 1)) == 2 * modulus - 1
    assert ids.accept(raw(2 * modulus, bits), float(2 * modulus)) == 2 * modulus
    assert ids.resets == 0


def test_many_wraps_of_a_narrow_counter() -> None:
    ids = FrameIds()
    assert feed(ids, [(n % 256, n * 1e-3) for n in range(100_000)]) == list(range(100_000))
    assert (ids.missed, ids.disordered, ids.resets) == (0, 0, 0)


def test_a_counter_that_wraps_is_unwrapped_even_where_the_source_gives_no_times() -> None:
    ids = FrameIds()
    assert feed(ids, [(n % 65536, 0.0) for n in range(65500, 65600)]) == list(range(65500, 65600))


@pytest.mark.parametrize("start", [0, 1, 7])
def test_a_reset_goes_on_above_and_loses_nothing(start: int) -> None:
    ids = FrameIds()
    assert feed(ids, [(n, float(n)) for n in range(5, 20)]) == list(range(5, 20))
    again = feed(ids, [(start + n, 100.0 + n) for n in range(10)])
    assert again == list(range(20 + start, 30 + start))
    assert (ids.missed, ids.disordered, ids.resets) == (0, 0, 1)
    # Late and repeated frames from either side of the reset still find their place.
    assert ids.accept(18, 18.0) is None
    assert ids.accept(start + 3, 103.0) is None
    assert ids.accept(start + 11, 111.0) == 31 + start
    assert ids.missed == 1
    assert ids.accept(start + 10, 110.0) == 30 + start
    assert (ids.missed, ids.disordered) == (0, 1)


def test_a_frame_from_before_the_reset_fills_its_gap_there() -> None:
    ids = FrameIds()
    feed(ids, [(n, float(n)) for n in range(100) if n != 98])
    feed(ids, [(0, 1000.0), (1, 1001.0)])
    assert (ids.missed, ids.resets) == (1, 1)
    assert ids.accept(98, 98.0) == 98
    assert (ids.missed, ids.resets) == (0, 1)


def test_frames_that_start_in_disorder_after_a_reset() -> None:
    ids = FrameIds()
    feed(ids, [(n, float(n)) for n in range(50)])
    assert feed(ids, [(2, 102.0), (0, 100.0), (1, 101.0), (3, 103.0)]) == [52, 50, 51, 53]
    assert (ids.missed, ids.disordered, ids.resets) == (0, 2, 1)


def test_a_late_frame_with_a_later_clock_fills_a_near_gap_but_not_a_far_one() -> None:
    ids = FrameIds()
    feed(ids, [(n, float(n)) for n in range(5000) if n not in (10, 4990)])
    assert ids.accept(4990, 9000.0) == 4990
    assert ids.resets == 0
    assert DISORDER < 5000 - 10
    assert ids.accept(10, 9001.0) == 5010
    assert ids.resets == 1


def test_what_is_older_than_the_window_counts_as_a_reset() -> None:
    ids = FrameIds()
    ids.accept(0, 0.0)
    ids.accept(WINDOW + 100, 1.0)
    assert ids.accept(0, 0.0) == WINDOW + 101
    assert ids.resets == 1


@pytest.mark.slow
@settings(max_examples=150, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.one_of(st.integers(-3, 300), st.integers(65500, 65600), st.integers(-(2**31), 2**31 - 1)),
            st.sampled_from([0.0, 1.0, 2.0, 3.0]) | st.floats(0, 10),
        ),
        max_size=80,
    )
)
def test_whatever_comes_ids_never_repeat_and_missed_is_a_count(frames: list[tuple[int, float]]) -> None:
    ids = FrameIds()
    seen = [got for got in feed(ids, frames) if got is not None]
    assert len(set(seen)) == len(seen)
    assert ids.missed >= 0
    assert ids.disordered <= len(seen)


@pytest.mark.slow
def test_memory_is_bounded() -> None:
    ids = FrameIds()
    for n in range(3 * WINDOW):
        ids.accept(n, float(n))
    for n in range(0, 10 * WINDOW, 999):
        ids.accept(3 * WINDOW + n, float(3 * WINDOW + n))
    assert len(ids._times) <= WINDOW
