"""Positions as a stream of samples: which place a frame gets, and that it depends on the samples alone."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ptychostream.errors import DropCause, GeometryError
from ptychostream.frames.frames import Frame
from ptychostream.positions.clock_offset import ClockOffset
from ptychostream.positions.join import Join
from ptychostream.positions.position_gate import GatedPositions, GateSettings
from ptychostream.positions.position_stream import StreamPositions, StreamPositionSettings
from ptychostream.positions.positions import AttributePositions, AxisConfig, NeverPlaced
from ptychostream.positions.sample_history import SampleHistory, sample_block

NO_COUNTS = np.zeros((1, 1), np.uint16)
START = 1.7e9
TOLERANCE_S = 0.02


def frame(time: float, number: int = 0, run: int = 1, received: float = 0.0, **attributes: float) -> Frame:
    return Frame(f"scan {run}", number, START + time, NO_COUNTS, attributes, received, run)


def stream(**values: object) -> StreamPositions:
    return StreamPositions(StreamPositionSettings.model_validate({"tolerance_s": TOLERANCE_S, **values}))


def send(source: StreamPositions, *samples: tuple[float, float, float], arrival: float = 0.0) -> None:
    times, x, y = np.transpose(samples)
    source.update(START + times, x, y, arrival)


def expected(samples: np.ndarray, time: float) -> tuple[float, float] | None:
    """The place by plain interpolation in the whole set; None where there is none."""
    times = START + samples[0]
    at = START + time
    if not times.size or at > times[-1] or at < times[0]:
        return None
    after = int(np.searchsorted(times, at))
    if times[after] != at and times[after] - times[after - 1] > TOLERANCE_S:
        return None
    return float(np.interp(at, times, samples[1])), float(np.interp(at, times, samples[2]))


# ---------------------------------------------------------------- the set decides, not the order


@pytest.mark.slow
@settings(max_examples=150, deadline=None)
@given(st.integers(2, 40), st.integers(1, 25), st.sampled_from([0.0, 0.003, 0.05]), st.integers(0, 99999), st.data())
def test_any_order_bulk_or_doubling_gives_the_same_places(
    count: int, frames: int, disorder_s: float, seed: int, data: st.DataObject
) -> None:
    random = np.random.default_rng(seed)
    # Gaps about the tolerance, so that some enclose nothing; in order of arrival, as far out of it as is allowed.
    samples = np.stack([np.cumsum(random.exponential(0.008, count)), *random.normal(0, 1e-6, (2, count))])
    arrival = np.argsort(samples[0] + random.uniform(0, disorder_s, count))
    asked = np.round(random.uniform(samples[0, 0] - 0.01, samples[0, -1] + 0.01, frames), 5)

    cuts = sorted(data.draw(st.lists(st.integers(0, count), max_size=8)))
    blocks = [block for block in np.split(arrival, cuts) if len(block)]
    for again in data.draw(st.lists(st.integers(0, count - 1), max_size=5)):
        first = next(index for index, block in enumerate(blocks) if again in block)
        blocks.insert(data.draw(st.integers(first, len(blocks))) + 1, np.array([again]))

    source = stream(max_disorder_s=disorder_s)
    join = Join(source, capacity=frames)
    placed: dict[int, tuple[float, float]] = {}
    dropped: set[int] = set()

    def take(out: object) -> None:
        placed.update({p.frame.id: (p.x_m, p.y_m) for p in out.placed})  # type: ignore[attr-defined]
        for lost, cause in out.dropped:  # type: ignore[attr-defined]
            assert cause is DropCause.NO_POSITION
            dropped.add(lost.id)

    order = iter(random.permutation(frames).tolist())
    for block in blocks:
        for number in [next(order, None) for _ in range(data.draw(st.integers(0, 4)))]:
            if number is not None:
                take(join.add(frame(asked[number], number)))
        source.update(START + samples[0, block], samples[1, block], samples[2, block])
        if data.draw(st.booleans()):
            take(join.poll())
    for number in order:
        take(join.add(frame(asked[number], number)))
    take(join.poll())
    for held in join._waiting.values():
        assert source.lookup(held) is None
    source.complete()
    take(join.poll())

    assert join.waiting == 0
    assert len(placed) + len(dropped) == frames
    assert source.counts.late == 0
    counts = source.counts
    assert counts.received == source.held + counts.duplicate
    for number, time in enumerate(asked):
        place = expected(samples, time)
        if place is None:
            assert number in dropped
        else:
            assert placed[number] == pytest.approx(place, abs=1e-15, rel=1e-9)


def test_a_frame_waits_for_the_sample_after_it_and_no_longer() -> None:
    source = stream()
    assert source.lookup(frame(0.5)) is None
    send(source, (0.49, 1.0, 10.0))
    assert source.lookup(frame(0.5)) is None
    send(source, (0.501, 2.0, 20.0))
    assert source.lookup(frame(0.5)) == pytest.approx((1 + 10 / 11, 10 + 100 / 11), rel=1e-4)
    assert source.lookup(frame(0.501)) == (2.0, 20.0)


def test_a_frame_beside_a_hole_or_before_the_first_sample_is_never_placed() -> None:
    source = stream()
    send(source, (0.0, 1.0, 1.0), (0.5, 2.0, 2.0), (0.51, 3.0, 3.0))
    with pytest.raises(NeverPlaced, match=r"no position for 0\.5 s around it"):
        source.lookup(frame(0.2))
    with pytest.raises(NeverPlaced, match="never sent"):
        source.lookup(frame(-0.1))
    assert source.lookup(frame(0.505)) == pytest.approx((2.5, 2.5), abs=1e-3)
    with pytest.raises(NeverPlaced, match="time nan"):
        source.lookup(frame(math.nan))


def test_what_comes_behind_the_watermark_is_left_out_and_counted() -> None:
    source = stream()
    send(source, (0.0, 0.0, 0.0), (0.01, 1.0, 1.0))
    before = source.lookup(frame(0.005))
    send(source, (0.005, 9.0, 9.0))
    assert source.lookup(frame(0.005)) == before
    assert (source.counts.late, source.counts.duplicate) == (1, 0)
    send(source, (0.01, 9.0, 9.0), (0.02, 2.0, 2.0), (0.02, 2.0, 2.0))
    assert source.lookup(frame(0.01)) == (1.0, 1.0)
    # equal times with unequal places are a fault, not a duplicate
    counts = source.counts
    assert (counts.late, counts.duplicate, counts.conflicting, counts.received) == (1, 1, 1, 6)
    assert counts.restarts == 0


def test_samples_that_are_not_numbers_are_bad_and_leave_a_hole() -> None:
    source = stream()
    send(source, (0.0, 0.0, 0.0), (0.01, math.nan, 1.0), (math.inf, 1.0, 1.0), (0.02, 2.0, 4.0))
    assert source.counts.bad == 2
    assert source.lookup(frame(0.01)) == pytest.approx((1.0, 2.0), abs=1e-3)
    for wrong in (([1.0], [1.0, 2.0], [1.0]), ([[1.0]], [[1.0]], [[1.0]]), (["a"], [1.0], [1.0])):
        with pytest.raises(GeometryError, match="position samples"):
            source.update(*wrong)
    assert source.counts.received == 4


def test_the_history_is_bounded_and_what_is_forgotten_can_no_longer_place() -> None:
    source = stream(capacity=100)
    for first in range(0, 1000, 7):
        times = np.arange(first, first + 7) * 0.01
        source.update(START + times, times, -times)
    assert source.held == 100
    assert source.counts.forgotten == 1001 - 100
    assert source.lookup(frame(9.505)) == pytest.approx((9.505, -9.505), abs=1e-6)
    with pytest.raises(NeverPlaced, match="no longer in memory: raise the capacity"):
        source.lookup(frame(5.0))
    times = 20 + np.arange(5000) * 0.01  # more at once than can be held
    source.update(START + times, times, times)
    assert source.held == 100
    assert source.counts.forgotten == 6001 - 100
    assert source.lookup(frame(times[-1] - 0.005)) == pytest.approx((times[-1] - 0.005,) * 2, abs=1e-6)


def test_open_samples_are_bounded_too() -> None:
    history = SampleHistory(10, max_disorder_s=1e9)
    for index in range(50):
        history.add(sample_block([index], [0.0], [0.0]))
        assert len(history) <= 20
    assert history.counts.received == len(history) + history.counts.forgotten


def test_a_clock_that_was_set_back_begins_a_new_history() -> None:
    source = stream()
    for base in (100.0, 40.0):
        for step in range(300):
            time = base + step * 0.01
            send(source, (time, time, 0.0))
    assert source.counts.restarts == 1
    assert source.counts.late == 0  # a second of them was needed to be sure, and none is lost
    for time in (40.0, 40.5, 42.5):
        assert source.lookup(frame(time)) == pytest.approx((time, 0.0), abs=1e-6)
    assert source.lookup(frame(101.0)) is None


def test_a_block_sent_again_is_no_clock_that_was_set_back() -> None:
    source = stream()
    times = np.arange(0, 10, 0.01)
    for _ in range(3):
        source.update(START + times, times, times)
    assert (source.counts.restarts, source.counts.duplicate, source.held) == (0, 2000, 1000)


def test_axes_offsets_and_exposure() -> None:
    axes = AxisConfig(unit="um", swap_xy=True, sign_y=-1)
    source = StreamPositions(StreamPositionSettings(frame_time_offset_s=0.005, clock_offset_s=0.2), axes)
    send(source, (0.2, 1.0, 5.0), (0.21, 2.0, 6.0))
    assert source.lookup(frame(0.0)) == pytest.approx((5.5e-6, -1.5e-6), rel=1e-4)
    source.configure(clock_offset_s=0.195)
    assert source.lookup(frame(0.0)) == pytest.approx((5e-6, -1e-6), rel=1e-4)
    assert source.offset_s == 0.195


def test_a_moving_stage_is_not_settled() -> None:
    source = stream(max_speed_m_s=1.0, speed_window_s=0.004)
    send(source, *((t / 1000, 0.0, 0.002 * max(0, 20 - t)) for t in range(40)))  # 2 m/s, at rest from 20 ms
    for time in (0.005, 0.0199):
        with pytest.raises(NeverPlaced, match=r"settling, the stage moves at 2e\+06 µm/s"):
            source.lookup(frame(time))
    assert source.moving == 2
    assert source.lookup(frame(0.03)) == (0.0, 0.0)
    source.configure(max_speed_m_s=3.0)
    assert source.lookup(frame(0.005)) is not None


# ---------------------------------------------------------------- the clock offset


@settings(max_examples=60, deadline=None)
@given(st.floats(-1e6, 1e6), st.integers(0, 2**32 - 1), st.floats(0.0, 0.02))
def test_the_clock_offset_is_found_among_delays(offset_s: float, seed: int, spread_s: float) -> None:
    random = np.random.default_rng(seed)
    clocks = ClockOffset()
    assert clocks.estimate() is None
    sent = np.arange(0, 5, 0.02)
    frames, blocks = (np.maximum.accumulate(sent + 0.001 + random.exponential(spread_s, 250)) for _ in range(2))
    for now, frame_came, block_came in zip(sent, frames, blocks, strict=True):
        clocks.note_frame(START + frame_came, START + now)
        clocks.note_positions(START + block_came, START + now + offset_s)
    estimate = clocks.estimate()
    assert estimate is not None
    # the least of 250 exponential delays lies spread/250 above none at all, on the mean
    assert abs(estimate.offset_s - offset_s) < 1e-6 + 0.06 * spread_s
    assert 0 <= estimate.uncertainty_s < 1e-6 + 0.5 * spread_s


def test_known_delays_are_taken_out_and_an_old_minimum_is_forgotten() -> None:
    clocks = ClockOffset(delay_difference_s=0.05)
    for now in np.arange(0, 60, 0.1):
        clocks.note_frame(now + 0.051, now)
        clocks.note_positions(now + 0.001, now + 0.001 * now)  # a clock that runs fast by 1 ms/s
    estimate = clocks.estimate()
    assert estimate is not None
    assert estimate.offset_s == pytest.approx(0.06, abs=0.001)


def test_this_machines_clock_set_back_begins_the_estimate_anew() -> None:
    clocks = ClockOffset()
    for base in (1000.0, 400.0):
        for now in np.arange(base, base + 3, 0.05):
            clocks.note_positions(now, now - base)
            clocks.note_frame(now, now - base - 0.3)
    estimate = clocks.estimate()
    assert estimate is not None
    assert estimate.offset_s == pytest.approx(0.3)


def test_automatic_frames_wait_for_the_offset_and_a_scan_keeps_its_own() -> None:
    source = stream(clock_offset_mode="Auto")
    join = Join(source, capacity=1000)
    placed: dict[int, list[tuple[float, float]]] = {1: [], 2: []}

    def take(out: object) -> None:
        assert not out.dropped  # type: ignore[attr-defined]
        for one in out.placed:  # type: ignore[attr-defined]
            placed[one.frame.run].append((one.frame.time - START, one.x_m))

    for run, base, offset in ((1, 0.0, 0.2), (2, 100.0, 0.3)):
        for step in range(300):
            now = base + step * 0.01
            if run == 1 and step == 50:
                assert source.offset_s is None
                assert join.waiting == 50
            take(join.add(frame(now, step, run, received=START + now + 0.001)))
            send(source, (now + offset, now, 0.0), arrival=START + now + 0.001)
            take(join.poll())
    assert len(placed[1]) == 300
    assert len(placed[2]) == 299  # the last one's next sample has not come
    assert source.offset_s == pytest.approx(0.3, abs=1e-5)
    for times, x in (np.transpose(places) for places in placed.values()):
        np.testing.assert_allclose(times, x, atol=1e-5)


# ---------------------------------------------------------------- the gate


def test_the_first_moments_of_each_scan_are_left_out() -> None:
    gate = GatedPositions(AttributePositions("X", "Y"), GateSettings(settling_s=0.1))
    place = {"X": 1e-6, "Y": 2e-6}
    join = Join(gate, capacity=10)
    for number, time in enumerate([0.0, 0.05, -0.01, 0.099, 0.101, 5.0]):
        out = join.add(frame(time, number, **place))
        assert [cause for _, cause in out.dropped] == ([DropCause.NO_POSITION] if time < 0.1 else [])
    assert gate.settling == 4
    assert "settling, 0.099 s after the scan's first" in gate.message
    assert join.add(frame(5.0, 0, run=2, **place)).dropped
    assert join.add(frame(5.2, 1, run=2, **place)).placed
    gate.restart_counts()
    assert (gate.settling, gate.message) == (0, "")


def test_places_outside_the_field_are_refused_and_counted() -> None:
    gate = GatedPositions(
        AttributePositions("X", "Y"), GateSettings(field_width_m=4e-6, field_height_m=2e-6, field_x_m=1e-6)
    )
    for x, y, inside in ((2.99e-6, 0.99e-6, True), (3.1e-6, 0, False), (-0.99e-6, 0, True), (0, 1.1e-6, False)):
        if inside:
            assert gate.lookup(frame(0.0, X=x, Y=y)) == (x, y)
        else:
            with pytest.raises(NeverPlaced, match="outside the field"):
                gate.lookup(frame(0.0, X=x, Y=y))
    assert (gate.outside, gate.settling) == (2, 0)


def test_samples_that_are_known_beforehand_place_frames_of_any_time_in_them() -> None:
    source = stream(tolerance_s=1.0)
    send(source, *((float(t), t * 1e-6, -t * 1e-6) for t in range(120)), arrival=START + 5)
    for number, time in enumerate((0.5, 5.5, 60.25, 118.5)):
        taken = frame(time, number, received=START + time + 0.01)
        assert source.lookup(taken) == pytest.approx((time * 1e-6, -time * 1e-6))
