"""Several threads: parts that share no object pixel, the same bits every time, the same picture."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reconstruct_case import likeness, make_scan, options

from ptychostream.hpc_agent.reconstruct import reconstruct
from ptychostream.reconstruct.parallel import rounds

pytestmark = pytest.mark.slow

SCAN, TRUTH, _ = make_scan(side=24)  # 120 pixels wide at patches of 64


@settings(max_examples=60, deadline=None)
@given(
    count=st.integers(0, 300),
    width=st.integers(1, 400),
    height=st.integers(1, 400),
    gap=st.integers(1, 130),
    threads=st.integers(1, 5),
    seed=st.integers(0, 99),
)
def test_each_position_comes_once_and_parts_of_a_round_are_apart(
    count: int, width: int, height: int, gap: int, threads: int, seed: int
) -> None:
    random = np.random.default_rng(seed)
    corners = np.stack([random.integers(0, height, count), random.integers(0, width, count)], axis=1)
    order = random.permutation(count)
    made = rounds(corners, order, gap, threads, random)
    visited = np.concatenate([part for parts in made for part in parts]) if made else order
    assert sorted(visited) == sorted(order)
    place = np.argsort(order)
    for parts in made:
        assert 1 <= len(parts) <= threads
        for index, part in enumerate(parts):
            assert len(part)
            assert (np.diff(place[part]) > 0).all(), "the order within a part is not kept"
            for other in parts[index + 1 :]:
                distance = np.abs(corners[part][:, None] - corners[other][None]).max(axis=2)
                assert distance.min() >= gap


def test_a_wide_scan_is_cut_into_even_parts() -> None:
    corners = np.stack(np.meshgrid(np.arange(0, 640, 16), np.arange(0, 640, 16), indexing="ij"), -1).reshape(-1, 2)
    made = rounds(corners, np.arange(len(corners)), 64, 2, np.random.default_rng(0))
    longest = sum(max(len(part) for part in parts) for parts in made)
    assert longest < 0.6 * len(corners)


@pytest.mark.parametrize("correct", ["none", "each"])
def test_the_same_threads_and_seed_give_the_same_bits(correct: str) -> None:
    given = {"iterations": 5, "correct_positions": correct}
    first, again, single = (reconstruct(SCAN, options(threads=number, **given)) for number in (3, 3, 1))
    assert first.object.tobytes() == again.object.tobytes()
    assert first.probe.tobytes() == again.probe.tobytes()
    assert first.object.tobytes() != single.object.tobytes()


def test_threads_find_the_same_object() -> None:
    single, several = (reconstruct(SCAN, options(iterations=16, threads=number)) for number in (1, 4))
    assert several.r_factor < 1.1 * single.r_factor
    assert likeness(several, TRUTH) > likeness(single, TRUTH) - 0.01
