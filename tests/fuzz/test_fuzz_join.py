"""Any story of frames, positions and scans: nothing lost or doubled, and no memory or time without bound."""

from __future__ import annotations

import sys

import pytest
from fuzz import join
from hypothesis import given, settings
from hypothesis import strategies as st

from ptychostream.frames.frame_ids import WINDOW, FrameIds


@pytest.mark.slow
@given(st.one_of(st.binary(max_size=300), st.sampled_from(list(join.seeds()))))
@settings(max_examples=400, deadline=None)
def test_any_story_keeps_the_law(data: bytes) -> None:
    join.check(data)


def test_every_seed_is_sound() -> None:
    for data in join.seeds():
        join.check(data)


def test_ids_that_jump_cost_no_more_steps_than_ids_that_do_not() -> None:
    calls = 0

    def count(*_: object) -> None:
        nonlocal calls
        calls += 1

    ids = FrameIds()
    before = sys.getprofile()
    sys.setprofile(count)
    try:
        for number in range(1000):
            ids.accept(number * (WINDOW - 1) % (1 << 31), float(number))
    finally:
        sys.setprofile(before)
    assert calls < 100 * 1000  # 65,535 each, once
