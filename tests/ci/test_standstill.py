"""A test's time limit counts only the time in which the machine ran."""

from __future__ import annotations

import subprocess
import sys

import pytest
from busy import busy_threads
from hypothesis import assume, given
from hypothesis import strategies as st
from standstill import BEAT_S, LATE_S, Deadline, Standstill


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@given(st.lists(st.floats(0.0, 60.0), max_size=30), st.floats(0.5, 20.0))
def test_a_deadline_counts_what_was_not_lost(steps: list[float], timeout: float) -> None:
    clock = Clock()
    still = Standstill(clock)
    still.wake()
    deadline = Deadline(timeout, still, clock)
    ran = 0.0
    for step in steps:
        assume(abs(step - BEAT_S - LATE_S) > 1e-6)  # on the border the rounding of the clock decides
        clock.now += step
        lost = step - BEAT_S if step - BEAT_S > LATE_S else 0.0
        ran += step - lost
        if abs(ran - timeout) > 1e-6:
            assert deadline.passed == (ran > timeout)  # the thread has not woken yet
        still.wake()
        if abs(ran - timeout) > 1e-6:
            assert deadline.passed == (ran > timeout)  # it has


def test_what_was_lost_is_told_once_for_each_time() -> None:
    clock = Clock()
    still = Standstill(clock)
    assert still.lost_s == 0.0
    still.wake()
    for step in (BEAT_S, 31.0, 2 * BEAT_S, 5.0):
        clock.now += step
        still.wake()
    assert [line.split(" until ")[0] for line in still.seen] == ["30.9 s", "4.9 s"]
    assert still.lost_s == pytest.approx(35.8)


def test_time_before_the_deadline_was_made_is_nobodys() -> None:
    clock = Clock()
    still = Standstill(clock)
    still.wake()
    clock.now += 50.0
    deadline = Deadline(2.0, still, clock)
    still.wake()
    for _ in range(2):
        clock.now += 0.9
        still.wake()
        assert not deadline.passed
    clock.now += 0.3
    assert deadline.passed


@pytest.mark.server
def test_the_busy_threads_are_named() -> None:
    spin = "import sys\nprint(flush=True)\nwhile True: pass  # never rests"
    with subprocess.Popen([sys.executable, "-c", spin], stdout=subprocess.PIPE) as busy:
        try:
            assert busy.stdout is not None and busy.stdout.read(1)
            told = busy_threads(1.0)
        finally:
            busy.kill()
    assert f" of {busy.pid} {sys.executable}" in told
    assert told.startswith("load ")
