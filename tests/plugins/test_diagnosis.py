"""Where frames stop: every stage by name, from two looks; and the log, once for each change."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ptychostream.errors import DropCause
from ptychostream.plugins.diagnosis import STUCK_S, Diagnoser, StreamState, Where, diagnose

BEFORE = StreamState(100.0, channel="det:Image", connected=True, received=50, stitched=50, scan_active=True, dropped={})


def later(seconds: float = 3.0, **changes: Any) -> StreamState:
    return replace(BEFORE, time=BEFORE.time + seconds, **changes)


def frames(came: int, **changes: Any) -> StreamState:
    return later(received=BEFORE.received + came, **changes)


@pytest.mark.parametrize(
    ("now", "quiet_s", "where", "says"),
    [
        (frames(10, stitched=60), 0.1, Where.RUNNING, ""),
        (later(enabled=False), 9, Where.DISABLED, "EnableCallbacks"),
        (later(channel=""), 9, Where.NO_CHANNEL, "InputPVAName"),
        (later(connected=False), 9, Where.DISCONNECTED, "waiting for det:Image"),
        (later(), 9, Where.SILENT, "det:Image is connected, but no frame has come for 9 s"),
        (later(scan_active=False), 9, Where.IDLE, ""),
        (later(scan_active=False, images="no memory"), 9, Where.IMAGES, "no memory"),
        (frames(10, stitched=60, images="no memory"), 0.1, Where.IMAGES, "no memory"),
        (frames(10, dropped={DropCause.SHAPE: 10}, message="64×64"), 0.1, Where.REJECTED, "Shape: 64×64"),
        (frames(10, dropped={DropCause.CODEC: 10}), 0.1, Where.REJECTED, "Codec"),
        (frames(10, dropped={DropCause.TYPE: 10}), 0.1, Where.REJECTED, "Type"),
        (frames(10, dropped={DropCause.DUPLICATE: 10}), 0.1, Where.REJECTED, "Duplicate"),
        (frames(10, dropped={DropCause.NO_POSITION: 10}, positions="route a.csv"), 0.1, Where.POSITIONS, "route a.csv"),
        (frames(10, waiting_position=10, positions="waveform"), 0.1, Where.POSITIONS, "10 frames wait"),
        (frames(10, dropped={DropCause.LATE: 10}), 0.1, Where.LATE, "over"),
        (frames(10, dropped={DropCause.DECIMATED: 10}), 0.1, Where.DECIMATED, "do not move"),
        (frames(10, dropped={DropCause.NO_MODEL: 10}), 0.1, Where.NO_MODEL, "no model"),
        (frames(10, dropped={DropCause.ENGINE: 10}, message="the engine failed"), 0.1, Where.ENGINE_FAILS, "failed"),
        (frames(10, dropped={DropCause.QUEUE_FULL: 8}, busy_s=2.5), 0.1, Where.ENGINE_BUSY, "2.5 s"),
        (frames(10, queue_used=8, busy_s=2.5), 0.1, Where.ENGINE_BUSY, "2.5 s"),
        (frames(10, queue_used=8, busy_s=STUCK_S), 0.1, Where.ENGINE_BUSY, "at one batch for 5 s"),
        (later(connected=False, busy_s=60), 9, Where.ENGINE_BUSY, "60 s"),
        (frames(10, stitched=55, dropped={DropCause.QUEUE_FULL: 5}), 0.1, Where.RUNNING, "50% of the frames"),
        (frames(10, stitched=55, dropped={DropCause.DECIMATED: 5}), 0.1, Where.RUNNING, ""),
        (frames(1000, stitched=1049, dropped={DropCause.LATE: 1}), 0.1, Where.RUNNING, ""),
    ],
)
def test_each_stage_is_named(now: StreamState, quiet_s: float, where: Where, says: str) -> None:
    found = diagnose(BEFORE, now, quiet_s)
    assert found.where is where
    assert says in found.text
    assert bool(found.text) == bool(says)
    assert found.stopped == (where not in (Where.RUNNING, Where.IDLE))


def test_every_cause_of_a_drop_names_a_stage() -> None:
    for cause in DropCause:
        found = diagnose(BEFORE, frames(10, dropped={cause: 10}), 0.1)
        assert found.stopped, cause
        assert found.cause == cause.value


def test_what_was_dropped_before_does_not_count() -> None:
    before = replace(BEFORE, dropped={DropCause.SHAPE: 900})
    now = frames(10, dropped={DropCause.SHAPE: 900, DropCause.NO_MODEL: 10})
    assert diagnose(before, now, 0.1).where is Where.NO_MODEL


def test_nothing_is_said_before_the_patience_is_over() -> None:
    now = later(1.0, received=60, dropped={DropCause.SHAPE: 10})
    assert not diagnose(BEFORE, now, 0.1).stopped
    assert not diagnose(BEFORE, later(1.0), 1.0).stopped


looks = st.builds(
    StreamState,
    time=st.floats(100, 110),
    enabled=st.booleans(),
    channel=st.sampled_from(["", "det"]),
    connected=st.booleans(),
    received=st.integers(0, 99),
    stitched=st.integers(0, 99),
    dropped=st.one_of(st.none(), st.dictionaries(st.sampled_from(list(DropCause)), st.integers(0, 99))),
    waiting_position=st.integers(0, 9),
    queue_used=st.integers(0, 9),
    busy_s=st.floats(0, 9),
    scan_active=st.booleans(),
    images=st.sampled_from(["", "no memory"]),
)


@pytest.mark.slow
@given(looks, looks, st.floats(0, 9))
def test_any_two_looks_give_a_diagnosis(before: StreamState, now: StreamState, quiet_s: float) -> None:
    found = diagnose(before, now, quiet_s)
    assert not found.stopped or found.text
    if found.where is Where.SILENT:
        assert now.connected
        assert now.scan_active


def run(diagnoser: Diagnoser, start_s: float, seconds: float, rate_hz: float, now: StreamState) -> StreamState:
    """StreamState five times a second while frames come and are stitched."""
    for step in range(1, round(5 * seconds) + 1):
        came = int(rate_hz * step / 5)
        look = replace(now, time=start_s + step / 5, received=now.received + came, stitched=now.stitched + came)
        diagnoser.look(look)
    return look


def test_the_log_tells_of_each_change_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    diagnoser = Diagnoser()
    look = run(diagnoser, 0, 4, 100, BEFORE)
    assert not caplog.messages
    look = run(diagnoser, 4, 10, 0, look)
    assert len(caplog.messages) == 1
    assert "frames stop at the stream" in caplog.messages[0]
    look = run(diagnoser, 14, 3, 0, replace(look, connected=False))
    assert len(caplog.messages) == 2
    run(diagnoser, 17, 3, 100, replace(look, connected=True))
    assert caplog.messages[2:] == ["nothing holds frames back any more"]


def test_a_slow_stream_is_not_silent() -> None:
    diagnoser = Diagnoser()
    look, found = BEFORE, []
    for frame in range(12):  # one every three seconds
        for step in range(15):
            look = replace(look, time=200 + 3 * frame + step / 5, received=50 + frame, stitched=50 + frame)
            found.append(diagnoser.look(look).where)
    assert Where.SILENT not in found[30:]
    for step in range(400):
        found.append(diagnoser.look(replace(look, time=look.time + step / 5)).where)
    assert found[-1] is Where.SILENT
