"""The accounting of each run, which every snapshot asks for."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from ptychostream.errors import DropCause
from ptychostream.plugins.flow.ledger import Ledger
from ptychostream.plugins.flow.scan_runs import FlowRun, FlowRuns


def receive(run: FlowRun) -> None:
    run.ledger.received += 1


def stitch(run: FlowRun) -> None:
    run.ledger.stitched += 1


def drop(run: FlowRun) -> None:
    run.ledger.drop(DropCause.NO_POSITION)


def end(run: FlowRun) -> None:
    run.ended = 3.0


def tell(run: FlowRun) -> None:
    run.told += 1


def rename(run: FlowRun) -> None:
    run.scan = "another"


def come(run: FlowRun) -> None:
    run.note(7.0, 7.0)


def skip(run: FlowRun) -> None:
    run.ids.accept(5, 1.0)
    run.ids.accept(9, 2.0)


@pytest.mark.parametrize("change", [receive, stitch, drop, end, tell, rename, come, skip])
def test_they_are_made_anew_when_something_has_changed(change: Callable[[FlowRun], None]) -> None:
    run = FlowRun(1, "s", 0.0)
    before = run.figures()
    assert run.figures() is before
    change(run)
    after = run.figures()
    assert after != before and run.figures() is after
    fresh = FlowRun(1, "s", 0.0)
    change(fresh)
    assert fresh.figures() == after


def test_hundreds_of_finished_runs_are_counted_once() -> None:
    runs = FlowRuns(1000, 1 << 30)
    for number in range(300):
        runs.begin(f"s{number}", float(number)).ledger.received += 1
    first, second = runs.figures(), runs.figures()
    assert [figures.number for figures in first] == list(range(300, 0, -1))
    assert all(one is other for one, other in zip(first, second, strict=True))


def test_what_another_process_counted_is_accounted_for() -> None:
    ledger = Ledger()
    ledger.show(5, dict.fromkeys(DropCause, 0) | {DropCause.LATE: 2, DropCause.SHAPE: 1}, 4)
    assert (ledger.received, ledger.lost) == (12, 3) and ledger.holds(4)
    ledger.restart(4)
    assert (ledger.received, ledger.stitched, ledger.lost) == (4, 0, 0) and ledger.holds(4)
