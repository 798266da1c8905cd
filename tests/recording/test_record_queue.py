"""What waits between a recording's threads is bounded, and a benchmark that would fill the disk does not begin."""

from __future__ import annotations

import shutil
import threading
from collections import namedtuple
from pathlib import Path

import pytest
from epics_env import wait_until
from hypothesis import given
from hypothesis import strategies as st

from ptychostream.cli.main import main
from ptychostream.recording.record_queue import BoundedQueue

TIMEOUT_S = 30.0


@pytest.mark.slow
@given(
    st.lists(st.integers(0, 50), max_size=40),
    st.integers(1, 5),
    st.integers(1, 60),
    st.integers(1, 7),
    st.integers(1, 60),
)
def test_all_comes_out_in_order_and_no_more_is_held_than_allowed(
    sizes: list[int], most: int, most_bytes: int, batch: int, batch_bytes: int
) -> None:
    queue: BoundedQueue[tuple[int, int]] = BoundedQueue(most, most_bytes)

    def fill() -> None:
        for number, size in enumerate(sizes):
            queue.put((number, size), size)

    filler = threading.Thread(target=fill)
    filler.start()
    got: list[tuple[int, int]] = []
    while len(got) < len(sizes):
        taken = queue.take(batch, batch_bytes, TIMEOUT_S)
        assert 1 <= len(taken) <= min(batch, most)
        held = sum(size for _, size in taken)
        assert len(taken) == 1 or held <= min(batch_bytes, most_bytes)
        got += taken
    filler.join()
    assert got == list(enumerate(sizes))
    assert queue.take(batch, batch_bytes) == []


@pytest.mark.slow
@pytest.mark.parametrize(("most", "most_bytes"), [(3, 1000), (1000, 30)])
def test_who_fills_it_waits(most: int, most_bytes: int) -> None:
    queue: BoundedQueue[int] = BoundedQueue(most, most_bytes)
    put = 0

    def fill() -> None:
        nonlocal put
        for number in range(5):
            queue.put(number, 10)
            put = number + 1

    filler = threading.Thread(target=fill)
    filler.start()
    wait_until(lambda: put == 3, TIMEOUT_S, "three to be put")
    filler.join(0.2)
    assert (filler.is_alive(), put) == (True, 3)
    assert queue.take(1, 1000) == [0]
    wait_until(lambda: put == 4, TIMEOUT_S, "the next to be put")
    assert queue.take(5, 1000) == [1, 2, 3]
    filler.join(TIMEOUT_S)
    assert queue.take(5, 1000) == [4]


@pytest.mark.slow
def test_a_benchmark_that_would_fill_the_disk_does_not_begin(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(0, 0, 1 << 20))
    words = ["bench", "record", "--seconds", "60", "--shape", "64x64", "--folder", str(tmp_path)]
    assert main(words) == 2
    assert "--folder" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
