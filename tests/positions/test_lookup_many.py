"""Many frames at once get the places that each of them gets alone, in the sources, the gate and the join."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ptychostream.frames.frames import Frame
from ptychostream.positions.indexed_positions import IndexedPositions, IndexPositionSettings
from ptychostream.positions.join import Join, Joined
from ptychostream.positions.position_gate import GatedPositions, GateSettings
from ptychostream.positions.position_stream import StreamPositions, StreamPositionSettings
from ptychostream.positions.positions import NeverPlaced, Place, PositionSource, lookup_all, one_by_one

NO_COUNTS = np.zeros((1, 1), np.uint16)
START = 1.7e9


def by_time(mode: str, **more: Any) -> StreamPositions:
    return StreamPositions(
        StreamPositionSettings.model_validate({"tolerance_s": 0.02, "clock_offset_mode": mode, "capacity": 300, **more})
    )


def by_index(per_arm: int = 0) -> IndexedPositions:
    return IndexedPositions(
        IndexPositionSettings(samples_per_frame=2, capacity=200, frames_per_arm=per_arm), now=lambda: START
    )


def plain(places: list[Place]) -> list[Any]:
    return [str(place) if isinstance(place, NeverPlaced) else place for place in places]


def frames_of(random: np.random.Generator, count: int, disorder: bool) -> list[Frame]:
    """Frames of two runs 10 ms apart; some time stamps lie outside, repeat or are none."""
    times = START + np.arange(count) * 0.01 + random.uniform(0, 0.004, count)
    times[random.random(count) < 0.05] = np.nan
    back = random.random() < 0.3
    made = []
    for number, time in enumerate(times.tolist()):
        run = 1 + (number >= 2 * count // 3)
        came = START + number // 5 * 0.05 + 1.0
        made.append(Frame("s", number, time - 100.0 * (back and run == 2), NO_COUNTS, {}, came, run))
    if disorder:
        order = np.argsort(np.arange(count) + random.uniform(-3, 3, count))
        made = [made[index] for index in order]
    return made


def send(source: StreamPositions | IndexedPositions, random: np.random.Generator, block: int) -> None:
    """A block of ten samples 5 ms apart; sometimes one is missing, or is not a number."""
    at = np.arange(block * 10, block * 10 + 10)
    x, y = np.sin(at * 0.1), np.cos(at * 0.1)
    x[random.random(10) < 0.02] = np.nan
    if isinstance(source, StreamPositions):
        keep = random.random(10) < 0.9
        source.update(START + at[keep] * 0.005, x[keep], y[keep], START + at[-1] * 0.005 + 1.0)
    else:
        source.update(at[0], x, y, arrival=START + at[-1] * 0.005 + 1.0)


SOURCES = ("Manual", "Auto", "speed", "index", "arms", "gated")


def make(name: str) -> tuple[PositionSource, Any]:
    source: Any
    if name in ("index", "arms"):
        source = by_index(20 if name == "arms" else 0)
    elif name == "speed":
        source = by_time("Manual", max_speed_m_s=18.0)
    else:
        source = by_time("Manual" if name == "gated" else name)
    if name == "gated":
        return GatedPositions(source, GateSettings(field_width_m=1.5)), source
    return source, source


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(st.sampled_from(SOURCES), st.integers(0, 99999), st.integers(1, 40), st.booleans())
def test_together_is_as_one_by_one(name: str, seed: int, at_once: int, disorder: bool) -> None:
    alone, fed_alone = make(name)
    many, fed_many = make(name)
    random = np.random.default_rng(seed)
    frames = frames_of(random, 150, disorder)
    for block in range(40):
        for source in (fed_alone, fed_many):
            send(source, np.random.default_rng(seed + block), block)
        if block == 39:
            fed_alone.complete()
            fed_many.complete()
        group = frames[block * 4 : block * 4 + at_once]
        if group:
            first, second = one_by_one(alone, group), list(lookup_all(many, group))
            if name != "Auto" or None not in first + second:  # an estimate takes in the group's arrivals first
                assert plain(second) == plain(first)
    if name == "gated":
        assert (many.outside, many.message) == (alone.outside, alone.message)


@pytest.mark.parametrize("name", ["Manual", "Auto", "index"])
@pytest.mark.parametrize("at_once", [1, 7, 40])
def test_a_join_of_groups_places_what_a_join_of_single_frames_places(name: str, at_once: int) -> None:
    def joined(size: int) -> dict[int, Any]:
        source, fed = make(name)
        join, random, out = Join(source, 1000), np.random.default_rng(5), Joined()
        frames = [Frame("s", n, START + n * 0.01 + 0.002, NO_COUNTS, {}, START + n * 0.01 + 1.0, 1) for n in range(150)]
        for first in range(0, 160, 40):
            for begin in range(first, first + 40, size):
                group = frames[begin : min(begin + size, first + 40)]
                one = join.add(group[0]) if size == 1 and group else join.add_all(group)
                out.placed += one.placed
                out.dropped += one.dropped
            for block in range(first // 4, first // 4 + 10):
                send(fed, random, block)
            polled = join.poll()
            out.placed += polled.placed
            out.dropped += polled.dropped
        assert join.waiting + len(out.placed) + len(out.dropped) == len(frames)
        assert len(out.placed) > 60
        return {one.frame.id: (one.x_m, one.y_m) for one in out.placed} | {one.id: cause for one, cause in out.dropped}

    assert joined(at_once) == joined(1)
