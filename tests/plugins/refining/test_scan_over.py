"""When the scan that is refined is over."""

from __future__ import annotations

from ptychostream.plugins.refining.scan_over import QUIET_INTERVALS, QUIET_S, ScanOver


def frames(over: ScanOver, *times: float) -> ScanOver:
    over.begin()
    for time_s in times:
        over.note(time_s)
    return over


def test_it_is_over_when_it_was_told() -> None:
    over = frames(ScanOver(), 0.0, 0.1)
    assert not over.is_over(3, 0.2)
    over.told(3)
    assert over.is_over(3, 0.2) and over.is_over(2, 0.2) and not over.is_over(4, 0.2)
    over.told(1)  # an earlier run is told of again
    assert over.is_over(3, 0.2)


def test_or_when_its_frames_have_stopped() -> None:
    over = frames(ScanOver(), 10.0, 10.1, 10.2)
    assert not over.is_over(1, 10.2 + QUIET_S) and over.is_over(1, 10.3 + QUIET_S)
    assert not over.is_over(1, 0.0) and not ScanOver().is_over(1, 1e9), "before any frame"


def test_a_slow_scan_has_longer_pauses() -> None:
    over = frames(ScanOver(), 0.0, 2.0, 4.0)
    assert not over.is_over(1, 4.0 + 2 * QUIET_INTERVALS) and over.is_over(1, 4.1 + 2 * QUIET_INTERVALS)
