"""A position clock that begins anew at every arm or line: the right places or none, never another scan's."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ptychostream.frames.frames import Frame
from ptychostream.positions.frame_clock import FrameClock
from ptychostream.positions.join import Join, Joined
from ptychostream.positions.position_stream import StreamPositions, StreamPositionSettings
from ptychostream.positions.positions import NeverPlaced

NO_COUNTS = np.zeros((1, 1), np.uint16)
EPOCH = 1.7e9
RATE = 0.1
TIMES = np.arange(0.0, 20.0, 0.01)
LINE = np.arange(0.11, 2.13, 0.02)  # 101 samples


def frame(number: int, time: float, run: int, received: float = 0.0) -> Frame:
    return Frame(f"scan {run}", number, time, NO_COUNTS, {}, received, run)


def stream(mode: str, **values: float) -> StreamPositions:
    settings = {"clock_offset_mode": mode, "tolerance_s": 0.05, **values}
    return StreamPositions(StreamPositionSettings.model_validate(settings))


def x_of(scan: int, time: np.ndarray) -> np.ndarray:
    """Where the stage is in a scan; no two scans share a place."""
    return np.asarray((5e-6 if scan == 1 else -7e-6) + 1e-8 * time)


class Taken:
    """What left a join: x by (run, id)."""

    def __init__(self) -> None:
        self.x: dict[tuple[int, int], float] = {}
        self.dropped = 0

    def take(self, out: Joined) -> None:
        self.x.update({(one.frame.run, one.frame.id): one.x_m for one in out.placed})
        self.dropped += len(out.dropped)


def blocks(count: int, size: int) -> Iterator[slice]:
    for first in range(0, count, size):
        yield slice(first, first + size)


@pytest.mark.slow
@pytest.mark.parametrize("size", [1, 7, 20, 333, 2000])
@pytest.mark.parametrize("known_arrivals", [True, False])
@pytest.mark.parametrize("first", ["frames", "positions", "both"])
def test_manual_both_clocks_begin_anew_at_every_arm(size: int, known_arrivals: bool, first: str) -> None:
    source = stream("Manual")
    join, taken = Join(source, 10_000), Taken()
    for scan in (1, 2):
        now = EPOCH + 60.0 * scan

        sent = iter([] if first == "positions" else range(200))

        def frames(before: float, sent: Iterator[int], scan: int = scan, now: float = now) -> None:
            for number in sent:
                time = 0.05 + RATE * number
                taken.take(join.add(frame(number, time, scan, now + time + 0.002 if known_arrivals else 0.0)))
                if time + RATE > before:
                    break

        if first == "frames":
            frames(99, sent)
        for part in blocks(len(TIMES), size):
            times = TIMES[part]
            frames(times[-1], sent)
            arrived = now + times[-1] + 0.01 if known_arrivals else 0.0
            source.update(times, x_of(scan, times), np.zeros(len(times)), arrived)
            taken.take(join.poll())
        if first == "positions":
            frames(99, iter(range(200)))
    assert (source.counts.restarts, source.passes) == (1, 2)
    if known_arrivals:  # else nobody can tell whether a frame without a place came before the clock began anew
        assert source.counts.restarts_in_scan == 0
    assert source.counts.late == source.counts.duplicate == source.counts.conflicting == 0
    for (run, number), x in taken.x.items():
        assert x == pytest.approx(x_of(run, np.array(0.05 + RATE * number)), abs=1e-12)
    # one whose sample is the last may wait for the next; else all have their places
    assert len(taken.x) + join.waiting + taken.dropped == 400
    assert len(taken.x) >= 398


def test_manual_a_pass_without_frames_places_no_later_scan() -> None:
    """A dry run of the stage, then a scan whose frames come before its positions."""
    source = stream("Manual")
    source.update(TIMES, x_of(1, TIMES), TIMES * 0, EPOCH + 20)
    with pytest.raises(NeverPlaced, match=r"came 60 s after the positions"):
        source.lookup(frame(0, 0.05, 1, EPOCH + 60.1))
    source.update(TIMES[:50], x_of(2, TIMES[:50]), TIMES[:50] * 0, EPOCH + 60.5)
    assert source.lookup(frame(1, 0.15, 1, EPOCH + 60.2)) == pytest.approx((float(x_of(2, np.array(0.15))), 0.0))


def test_manual_one_offset_is_of_one_pass_alone() -> None:
    """The detector's clock goes on, the source's begins anew, and nobody says another offset."""
    source = stream("Manual")
    source.update(TIMES, x_of(1, TIMES), TIMES * 0, EPOCH + 20)
    assert source.lookup(frame(0, 0.05, 1, EPOCH + 0.06)) is not None
    for part in blocks(9000, 500):
        times = np.arange(0, 90, 0.01)[part]
        source.update(times, x_of(2, times), times * 0, EPOCH + 60 + times[-1])
    with pytest.raises(NeverPlaced, match="began anew before it"):
        source.lookup(frame(1, 60.5, 1, EPOCH + 60.51))
    assert (source.counts.restarts, source.counts.restarts_in_scan) == (1, 0), "it came before the clock began anew"
    for number in (1, 2):
        with pytest.raises(NeverPlaced, match="began anew before it"):
            source.lookup(frame(number, 70.5 + number, 1, EPOCH + 70.51))
    assert (source.counts.restarts_in_scan, source.passes) == (1, 2)
    assert source.lookup(frame(2, 60.5, 2, EPOCH + 60.51)) is None  # 60 s before the samples of that time
    source.configure(clock_offset_s=-60.0)
    assert source.lookup(frame(3, 60.55, 2, EPOCH + 60.56)) == pytest.approx((float(x_of(2, np.array(0.55))), 0.0))


@pytest.mark.parametrize("detector", ["goes on", "begins anew"])
def test_auto_an_offset_for_every_arm(detector: str) -> None:
    source = stream("Auto")
    join, taken = Join(source, 10_000), Taken()
    for scan in (1, 2):
        now = EPOCH + 60.0 * scan
        base = 0.0 if detector == "begins anew" else now
        for step, part in enumerate(blocks(len(TIMES), 10)):
            times = TIMES[part]
            taken.take(join.add(frame(step, base + times[0] + 0.05, scan, now + times[0] + 0.052)))
            source.update(times, x_of(scan, times), times * 0, now + times[-1] + 0.002)
            taken.take(join.poll())
    assert len(taken.x) >= 398
    for (run, number), x in taken.x.items():
        assert x == pytest.approx(x_of(run, np.array(0.05 + RATE * number)), abs=1e-11)


@pytest.mark.slow
@pytest.mark.parametrize("size", [1, 5, 10, 20, 101])
@pytest.mark.parametrize("mode", ["Auto", "Manual"])
def test_a_clock_that_begins_anew_at_every_line(size: int, mode: str) -> None:
    """Eleven lines of 101 samples, as a fly scan's PandABox sends; the detector's clock goes on."""
    source = stream(mode, clock_offset_s=-EPOCH)
    join, taken = Join(source, 10_000), Taken()
    number, truth = 0, {}
    for line in range(11):
        began = EPOCH + 2.5 * line
        for part in blocks(len(LINE), size):
            times = LINE[part] + 1e-7 * line
            x = 1e-6 * line + 1e-7 * times
            for time in times[times < times[-1]] if size > 1 else times:
                truth[1, number] = 1e-6 * line + 1e-7 * (time + 0.005)
                taken.take(join.add(frame(number, began + time + 0.005, 1, began + time + 0.006)))
                number += 1
            source.update(times, x, times * 0, began + times[-1] + 0.001)
            taken.take(join.poll())
    assert source.counts.restarts == 10
    assert source.counts.received == 1111
    assert source.counts.late == source.counts.duplicate == source.counts.conflicting == 0
    assert source.held == 1111
    for key, x in taken.x.items():
        assert x == pytest.approx(truth[key], abs=2e-9)
    lines = {int(x // 1e-6) for x in taken.x.values()}
    # Auto needs eight blocks a line to know the offset
    assert lines == ({0} if mode == "Manual" else set(range(11)) if size <= 10 else set())


@pytest.mark.slow
@pytest.mark.parametrize("stale", [-1.520592637e10, 12.9, 4.889428296, 1e10])
@pytest.mark.parametrize("size", [1, 10])
def test_the_first_row_of_a_capture_may_be_of_an_earlier_one(stale: float, size: int) -> None:
    """PandABlocks-FPGA#129 and #179: time and place of the first row are left over."""
    source = stream("Manual")
    for scan in (1, 2):
        times = np.concatenate([[stale], TIMES[1:]])
        x = np.concatenate([[1.0], x_of(scan, TIMES[1:])])
        for part in blocks(len(times), size):
            source.update(times[part], x[part], times[part] * 0)
        for time in (0.5, 12.9, 19.9):
            place = source.lookup(frame(int(100 * time), time, scan))
            assert place == pytest.approx((float(x_of(scan, np.array(time))), 0.0), abs=1e-12)


def test_two_places_of_one_time_are_no_place() -> None:
    source = stream("Manual", max_disorder_s=1.0)
    source.update([1.0, 1.01, 1.02], [1.0, 2.0, 3.0], [0.0, 0.0, 0.0])
    source.update([1.01], [2.5], [0.0])
    source.complete()
    assert source.counts.conflicting == 1
    for time in (1.005, 1.01, 1.015):
        with pytest.raises(NeverPlaced, match="two different positions"):
            source.lookup(frame(0, time, 1))
    assert source.lookup(frame(1, 1.02, 1)) == (3.0, 0.0)


def test_a_block_that_comes_late_is_no_pass() -> None:
    source = stream("Manual")
    for part in (slice(0, 20), slice(40, 60), slice(20, 40), slice(60, 80)):
        source.update(TIMES[part], TIMES[part], TIMES[part])
    assert (source.counts.restarts, source.counts.late) == (0, 20)
    assert source.lookup(frame(0, 0.655, 1)) == pytest.approx((0.655, 0.655))


def test_passes_are_bounded() -> None:
    source = stream("Manual", capacity=1000)
    for arm in range(40):
        source.update(TIMES[:400], TIMES[:400] + arm, TIMES[:400])
    assert source.counts.restarts == 39
    assert source.held <= 2000
    assert source.lookup(frame(0, 1.0, 1)) == (40.0, 1.0)


@pytest.mark.slow
@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(3, 12), min_size=1, max_size=4), st.randoms(use_true_random=False))
def test_the_pass_of_a_frame_does_not_depend_on_the_order_within_it(sizes: list[int], random: object) -> None:
    """Frames come in any order within a pass and a little beyond its end."""
    clock = FrameClock()
    number, frames = 0, []
    for which, size in enumerate(sizes):
        for step in range(size):
            frames.append((which, frame(number, 2.0 * step, 1)))
            number += 1
    for at in range(0, len(frames) - 1, 2):
        if random.random() < 0.5:  # type: ignore[attr-defined]
            frames[at], frames[at + 1] = frames[at + 1], frames[at]
    for which, one in frames:
        assert clock.pass_of(one) == which
