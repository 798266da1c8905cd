"""Batches: full, late, flushed; bounded; never of two scans."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ptychostream.frames.frames import Frame, PlacedFrame
from ptychostream.plugins.flow.batcher import Batcher

COUNTS = np.zeros((1, 1), np.uint8)


def frame(number: int, scan: str = "s") -> PlacedFrame:
    return PlacedFrame(Frame(scan, number, 0.0, COUNTS), 0.0, 0.0)


def ids(batch: list[PlacedFrame]) -> list[int]:
    return [placed.frame.id for placed in batch]


def test_leaves_when_full() -> None:
    batcher = Batcher(3, 10.0, 100)
    assert batcher.due(0.0) is None
    batcher.add(frame(0), 0.0)
    batcher.add(frame(1), 1.0)
    assert batcher.take(1.0) == []
    batcher.add(frame(2), 2.0)
    batcher.add(frame(3), 2.0)
    assert batcher.due(2.0) == 0.0
    assert ids(batcher.take(2.0)) == [0, 1, 2]
    assert batcher.waiting == 1


def test_leaves_when_the_oldest_has_waited() -> None:
    batcher = Batcher(8, 0.5, 100)
    batcher.add(frame(0), 10.0)
    batcher.add(frame(1), 10.4)
    assert batcher.due(10.2) == pytest.approx(0.3)
    assert batcher.take(10.49) == []
    assert ids(batcher.take(10.5)) == [0, 1]
    assert batcher.due(10.5) is None


def test_flush_lets_the_tail_go_and_holds_back_what_comes_after() -> None:
    batcher = Batcher(4, 10.0, 100)
    for number in range(6):
        batcher.add(frame(number), 0.0)
    batcher.flush()
    batcher.add(frame(6), 0.0)
    assert ids(batcher.take(0.0)) == [0, 1, 2, 3]
    assert ids(batcher.take(0.0)) == [4, 5]
    assert batcher.take(0.0) == []
    assert batcher.waiting == 1


def test_a_new_scan_flushes_the_old() -> None:
    batcher = Batcher(4, 10.0, 100)
    batcher.add(frame(0, "a"), 0.0)
    batcher.add(frame(0, "b"), 0.0)
    assert [placed.frame.scan for placed in batcher.take(0.0)] == ["a"]
    assert batcher.take(0.0) == []


@pytest.mark.parametrize(("drop_oldest", "gone", "kept"), [(False, [3, 4], [0, 1, 2]), (True, [0, 1], [2, 3, 4])])
def test_full_queue_gives_back_what_it_drops(drop_oldest: bool, gone: list[int], kept: list[int]) -> None:
    batcher = Batcher(8, 10.0, 3, drop_oldest)
    dropped = [batcher.add(frame(number), 0.0) for number in range(5)]
    assert ids([placed for some in dropped for placed in some]) == gone
    assert ids(batcher.clear()) == kept
    assert batcher.waiting == 0


steps = st.lists(
    st.one_of(
        st.tuples(st.just("add"), st.sampled_from("ab")),
        st.tuples(st.just("take"), st.floats(0, 2)),
        st.tuples(st.just("flush"), st.none()),
        st.tuples(st.just("size"), st.integers(1, 5)),
    ),
    max_size=60,
)


@pytest.mark.slow
@given(steps, st.integers(1, 5), st.integers(1, 10), st.booleans())
def test_any_interleaving_keeps_every_frame_once_and_in_order(
    steps: list[tuple[str, object]], batch: int, capacity: int, drop_oldest: bool
) -> None:
    batcher = Batcher(batch, 1.0, capacity, drop_oldest)
    now, number = 0.0, 0
    taken: list[int] = []
    dropped: list[int] = []
    for what, value in steps:
        if what == "add":
            dropped += ids(batcher.add(frame(number, str(value)), now))
            number += 1
        elif what == "take":
            now += float(value)  # type: ignore[arg-type]
            due = batcher.due(now)
            out = batcher.take(now)
            assert (due == 0.0) == bool(out)
            assert len(out) <= batcher.batch
            assert len({placed.frame.scan for placed in out}) <= 1
            taken += ids(out)
        elif what == "flush":
            batcher.flush()
        else:
            batcher.batch = int(value)  # type: ignore[call-overload]
        assert batcher.waiting <= capacity
        assert batcher.entered - batcher.left == batcher.waiting
    batcher.flush()
    while out := batcher.take(now):
        taken += ids(out)
    assert batcher.waiting == 0
    assert taken == sorted(taken)
    assert sorted(taken + dropped) == list(range(number))


@pytest.mark.parametrize(("drop_oldest", "gone", "kept"), [(False, [2, 3], [0, 1]), (True, [0, 1], [2, 3])])
def test_a_queue_is_bounded_by_bytes_as_well(drop_oldest: bool, gone: list[int], kept: list[int]) -> None:
    size = frame(0).frame.counts.nbytes
    batcher = Batcher(8, 10.0, 100, drop_oldest, max_bytes=2 * size)
    dropped = [batcher.add(frame(number), 0.0) for number in range(4)]
    assert ids([placed for some in dropped for placed in some]) == gone
    assert (batcher.held_bytes, batcher.use) == (2 * size, 1.0)
    assert ids(batcher.clear()) == kept
    assert batcher.held_bytes == 0
    batcher.max_bytes = size // 2
    assert batcher.add(frame(9), 0.0) == []  # one frame is held whatever its size
