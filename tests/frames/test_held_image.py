"""The image that a server held before the subscription is the past, unless its scan goes on."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ptychostream.frames.held_image import HeldImages, Seen


def passed(gate: HeldImages[Seen], *frames: Seen) -> list[int]:
    """Ids of the frames that pass, in order."""
    return [one.raw_id for frame in frames for one in gate.take(frame, frame)]


@pytest.mark.parametrize(
    ("first", "second", "goes_on"),
    [
        (Seen("a", 373, 100.0), Seen("b", 374, 2e5), False),  # ids go on from scan to scan
        (Seen("a", 373, 100.0), Seen("a", 1, 2e5), False),  # the counter was reset
        (Seen("a", 373, 100.0, True), Seen("a", 374, 160.0, False), False),  # the same name again
        (Seen("", 373, 100.0), Seen("", 374, 160.0), False),  # no name, and a pause
        (Seen("a", 5, 100.0), Seen("a", 6, 100.1), True),
        (Seen("a", 5, 100.0), Seen("a", 9, 130.0), True),  # slow, and frames were lost
        (Seen("a", 5, 100.0, False), Seen("a", 6, 101.0, True), True),
        (Seen("a", 5, 100.0, True), Seen("a", 6, 101.0, True), True),  # the last scan's value still
        (Seen("", 5, 100.0), Seen("", 6, 100.1), True),
        (Seen("", 5, 0.0), Seen("", 6, 0.0), True),  # no time stamps
        (Seen("a", 2**31 - 1, 1.0), Seen("a", -(2**31), 1.1), True),
    ],
)
def test_the_next_frame_decides_about_the_first(first: Seen, second: Seen, goes_on: bool) -> None:
    gate: HeldImages[Seen] = HeldImages()
    assert passed(gate, first) == []
    assert (gate.count, gate.held) == (1, first)
    assert passed(gate, second) == ([first.raw_id] if goes_on else []) + [second.raw_id]
    assert (gate.count, gate.held) == (int(not goes_on), None)
    assert passed(gate, first) == [first.raw_id], "the rest is not looked at"


def test_a_channel_without_an_image_loses_nothing() -> None:
    gate: HeldImages[Seen] = HeldImages()
    gate.empty()
    assert passed(gate, Seen("a", 1, 1.0)) == [1]
    assert gate.count == 0


def test_after_a_disconnection() -> None:
    gate: HeldImages[Seen] = HeldImages()
    gate.empty()
    assert passed(gate, Seen("a", 1, 1.0)) == [1]
    gate.subscribed()
    assert passed(gate, Seen("a", 1, 1.0), Seen("a", 2, 1.1)) == [2]  # it came before
    assert gate.count == 1
    gate.subscribed()
    assert passed(gate, Seen("a", 7, 9.0)) == [7], "the scan went on meanwhile"
    gate.subscribed()
    assert passed(gate, Seen("b", 8, 9.0), Seen("b", 8, 9.0)) == []
    gate.subscribed()
    assert gate.count == 2
    gate.restart_count()
    assert gate.count == 0


@pytest.mark.slow
@given(
    st.lists(st.tuples(st.sampled_from(["", "a"]), st.integers(0, 5), st.sampled_from([0.0, 1.0, 50.0])), max_size=12)
)
def test_at_most_the_first_is_lost(stream: list[tuple[str, int, float]]) -> None:
    gate: HeldImages[Seen] = HeldImages()
    frames = [Seen(*one) for one in stream]
    through = [one for frame in frames for one in gate.take(frame, frame)]
    first = next((number for number, frame in enumerate(frames) if frame != frames[0]), len(frames))
    assert through in (frames[first:], frames[:1] + frames[first:])
    assert gate.count == (len(through) == len(frames[first:])) * bool(frames)


def test_the_image_that_is_kept_back_can_be_looked_at() -> None:
    held: HeldImages[str] = HeldImages()
    held.subscribed()
    assert held.image is None
    assert held.take("a", Seen("s", 1, 1.0)) == ()
    assert held.image == "a"
    assert tuple(held.take("b", Seen("s", 2, 1.1))) == ("a", "b")
    assert held.image is None
