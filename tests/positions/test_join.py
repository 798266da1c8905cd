"""Frames and positions in any order: every frame leaves once, and the canvas does not know the order."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from ptychostream.errors import DropCause
from ptychostream.frames.frames import Frame
from ptychostream.imaging.stitching import Canvas
from ptychostream.positions.join import Join, Joined
from ptychostream.positions.positions import AttributePositions, WaveformPositions

NO_COUNTS = np.zeros((1, 1), np.uint16)


def frame(number: int, scan: str = "1", **attributes: float) -> Frame:
    return Frame(scan, number, float(number), NO_COUNTS, attributes)


def ids(out: Joined) -> tuple[list[int], list[tuple[int, DropCause]]]:
    return [placed.frame.id for placed in out.placed], [(lost.id, cause) for lost, cause in out.dropped]


def test_a_frame_that_carries_its_position_goes_straight_through() -> None:
    join = Join(AttributePositions("X", "Y"), capacity=1)
    out = join.add(frame(3, X=1.0, Y=2.0))
    assert (out.placed[0].x_m, out.placed[0].y_m) == (1.0, 2.0)
    assert ids(join.add(frame(4, X=np.nan, Y=2.0))) == ([], [(4, DropCause.NO_POSITION)])
    assert join.waiting == 0


def test_frames_wait_and_positions_wait() -> None:
    source = WaveformPositions()
    join = Join(source, capacity=10)
    assert ids(join.add(frame(1))) == ([], [])
    assert ids(join.add(frame(0))) == ([], [])
    source.update([5.0, 6.0, 7.0], [0.0, np.nan, 0.0])
    out = join.poll()
    assert ids(out) == ([0], [])
    assert ids(join.add(frame(2))) == ([2], [])
    source.update([5.0, 6.0, 7.0], [0.0, 1.0, 0.0])
    out = join.poll()
    assert ids(out) == ([1], [])
    assert (out.placed[0].x_m, out.placed[0].y_m) == (6.0, 1.0)


def test_more_frames_than_positions_are_dropped_when_the_arrays_are_complete() -> None:
    source = WaveformPositions()
    join = Join(source, capacity=10)
    for number in range(4):
        join.add(frame(number))
    source.update([0.0, 1.0], [0.0, 1.0], complete=True)
    assert ids(join.poll()) == ([0, 1], [(2, DropCause.NO_POSITION), (3, DropCause.NO_POSITION)])


def test_when_full_the_longest_waiting_goes() -> None:
    join = Join(WaveformPositions(), capacity=2)
    assert ids(join.add(frame(9))) == ids(join.add(frame(1))) == ([], [])
    assert ids(join.add(frame(5))) == ([], [(9, DropCause.NO_POSITION)])
    assert ids(join.add(frame(6))) == ([], [(1, DropCause.NO_POSITION)])
    assert join.waiting == 2
    with pytest.raises(ValueError, match="capacity"):
        Join(WaveformPositions(), capacity=0)


def test_the_end_of_a_scan_places_what_it_can_and_drops_the_rest_of_that_scan() -> None:
    source = WaveformPositions()
    join = Join(source, capacity=10)
    for number, scan in ((0, "1"), (1, "1"), (0, "2")):
        join.add(frame(number, scan))
    source.update([1.0], [1.0], scan="1")
    assert ids(join.end_scan("1")) == ([0], [(1, DropCause.NO_POSITION)])
    assert join.waiting == 1
    assert ids(join.add(frame(0, "1"))) == ([], [(0, DropCause.LATE)])
    join.start_scan("1")
    assert ids(join.add(frame(0, "1"))) == ([0], [])


def test_streams_that_name_no_scan_are_never_late() -> None:
    source = WaveformPositions()
    source.update([1.0], [1.0])
    join = Join(source, capacity=10)
    join.end_scan("")
    assert ids(join.add(frame(0, ""))) == ([0], [])


def test_poll_asks_nothing_again_while_nothing_has_changed() -> None:
    class Counting(WaveformPositions):
        asked = 0

        def lookup(self, frame: Frame) -> tuple[float, float] | None:
            self.asked += 1
            return super().lookup(frame)

    source = Counting()
    join = Join(source, capacity=1000)
    for number in range(1000):
        join.add(frame(number))
    source.asked = 0
    for _ in range(5):
        join.poll()
    assert source.asked == 0
    for filled in range(0, 1000, 10):
        source.update(np.arange(filled), np.arange(filled))
        join.poll()
    # Each frame once, when its position has come: not all that wait at every update.
    assert source.asked == 990
    hole = np.arange(1001.0)
    hole[995] = np.nan
    source.update(hole, hole)
    assert len(join.poll().placed) == 9
    source.asked = 0
    assert ids(join.poll()) == ([], [])
    assert source.asked == 0
    assert join.waiting == 1


class EveryFrameLeavesOnce(RuleBasedStateMachine):
    """Any interleaving of frames, positions, polls and scan ends."""

    def __init__(self) -> None:
        super().__init__()
        self.source = WaveformPositions()
        self.capacity = 7
        self.join = Join(self.source, self.capacity)
        self.frames: list[Frame] = []
        self.left: Counter[int] = Counter()
        self.position = np.full((40, 2), np.nan)
        self.ended: set[str] = set()

    def take(self, out: Joined) -> None:
        for placed in out.placed:
            self.left[id(placed.frame)] += 1
            assert (placed.x_m, placed.y_m) == (placed.frame.id, placed.frame.id * 2)
        for lost, cause in out.dropped:
            self.left[id(lost)] += 1
            assert cause in (DropCause.NO_POSITION, DropCause.LATE)
            if cause is DropCause.LATE:
                assert lost.scan in self.ended

    @rule(number=st.integers(-1, 45), scan=st.sampled_from(["", "1", "2", "3"]))
    def add(self, number: int, scan: str) -> None:
        self.frames.append(frame(number, scan))
        out = self.join.add(self.frames[-1])
        self.take(out)
        if scan in self.ended:
            assert ids(out) == ([], [(number, DropCause.LATE)])

    @rule(
        numbers=st.lists(st.integers(0, 39), max_size=12),
        length=st.integers(0, 40),
        complete=st.booleans(),
        scan=st.sampled_from([None, None, "1", "2"]),
    )
    def positions_come(self, numbers: list[int], length: int, complete: bool, scan: str | None) -> None:
        self.position[numbers] = np.transpose([numbers, np.multiply(numbers, 2)])
        self.source.update(self.position[:length, 0], self.position[:length, 1], complete, scan)

    @rule()
    def poll(self) -> None:
        self.take(self.join.poll())
        # Whoever still waits is truly not known: polling missed nobody.
        for held in self.join._waiting.values():
            assert self.source.lookup(held) is None

    @rule(scan=st.sampled_from(["", "1", "2", "3"]))
    def end(self, scan: str) -> None:
        self.take(self.join.end_scan(scan))
        assert not any(held.scan == scan for held in self.join._waiting.values())
        self.ended |= {scan} - {""}

    @rule(scan=st.sampled_from(["1", "2"]))
    def start(self, scan: str) -> None:
        self.join.start_scan(scan)
        self.ended -= {scan}

    @invariant()
    def nothing_is_lost_or_doubled(self) -> None:
        assert len(self.frames) == self.left.total() + self.join.waiting
        assert not self.left or max(self.left.values()) == 1
        assert self.join.waiting <= self.capacity


TestEveryFrameLeavesOnce = pytest.mark.slow(EveryFrameLeavesOnce.TestCase)
TestEveryFrameLeavesOnce.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)


@pytest.mark.slow
@settings(max_examples=100, deadline=None)
@given(st.integers(1, 25), st.data())
def test_any_interleaving_gives_the_same_canvas(count: int, data: st.DataObject) -> None:
    rng = np.random.default_rng(count)
    xy = rng.uniform(-1e-7, 1e-7, (count, 2))
    patches = rng.uniform(-3, 3, (count, 6, 6)).astype(np.float32)
    expected = Canvas(1e-8, np.ones((6, 6)))
    expected.add_batch(patches, xy)

    source = WaveformPositions()
    join = Join(source, capacity=count)
    canvas = Canvas(1e-8, np.ones((6, 6)))

    def stitch(out: Joined) -> None:
        assert not out.dropped
        for placed in out.placed:
            canvas.add(patches[placed.frame.id], placed.x_m, placed.y_m)

    frames = data.draw(st.permutations(range(count)))
    arrived = np.full((count, 2), np.nan)
    for event in data.draw(st.permutations([("frame", n) for n in frames] + [("position", n) for n in range(count)])):
        kind, number = event
        if kind == "frame":
            stitch(join.add(frame(number)))
        else:
            arrived[number] = xy[number]
            source.update(*arrived.T)
            if data.draw(st.booleans()):
                stitch(join.poll())
    stitch(join.end_scan("1"))
    assert join.waiting == 0
    assert canvas.patches == count
    assert canvas.image().phase.tobytes() == expected.image().phase.tobytes()
    assert canvas.image().origin_m == expected.image().origin_m
