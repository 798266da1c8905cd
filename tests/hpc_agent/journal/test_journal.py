"""The agent's journal: what is written is there after kill -9, and nothing is entered or done twice."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import threading
from contextlib import closing
from pathlib import Path

import pytest

from ptychostream.errors import AgentError
from ptychostream.hpc_agent.journal.journal import Journal, StepState
from ptychostream.hpc_agent.journal.policy import Mode, PolicyState

WRITER = """
import os, sys
from pathlib import Path
from ptychostream.hpc_agent.journal.journal import Journal
journal = Journal(Path(sys.argv[1]))
number = 0
while True:
    key = f"s{number}"
    journal.enter(key, {"file": key}, float(number))
    for step in ("reconstruct", "label"):
        journal.begin(key, step, 1.0)
        journal.finish(key, step, {"number": number}, 2.0)
    journal.close_scan(key, "done")
    print(number, flush=True)
    number += 1
"""


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return Journal(tmp_path / "work" / "journal.sqlite")


def test_a_scan_is_entered_once(journal: Journal) -> None:
    assert journal.enter("a", {"scan_id": "7", "file": "x.h5"}, 1.0)
    assert not journal.enter("a", {"scan_id": "8"}, 2.0)
    assert journal.enter("b", {}, 3.0)
    assert [(s.key, s.number, s.event, s.outcome) for s in journal.open_scans()] == [
        ("a", 1, {"scan_id": "7", "file": "x.h5"}, ""),
        ("b", 2, {}, ""),
    ]
    journal.close_scan("a", "trained")
    assert [s.key for s in journal.open_scans()] == ["b"]
    assert not journal.enter("a", {}, 4.0)
    assert [s.outcome for s in journal.scans()] == ["trained", ""]


def test_the_operator_brings_the_latest_scan_up_again(journal: Journal) -> None:
    assert journal.ask_again("retrain") == ""
    for key in ("a", "b", "c"):
        journal.enter(key, {}, 1.0)
    journal.close_scan("a", "judged")
    journal.close_scan("b", "judged")
    assert journal.ask_again("retrain") == "b"
    assert [(scan.key, scan.asked, scan.asked_times) for scan in journal.open_scans()] == [
        ("b", "retrain", 1),
        ("c", "", 0),
    ]
    journal.close_scan("b", "trained")
    assert journal.ask_again("reconstruct") == "b"
    assert journal.open_scans()[0].asked_times == 2


def test_a_step_that_is_done_is_not_begun_again(journal: Journal) -> None:
    journal.enter("a", {}, 1.0)
    first = journal.begin("a", "reconstruct", 2.0)
    assert (first.state, first.attempts) == (StepState.RUNNING, 1)
    journal.fail("a", "reconstruct", "killed at its walltime", 3.0, again=True)
    assert journal.steps("a")["reconstruct"].message == "killed at its walltime"
    assert journal.begin("a", "reconstruct", 4.0).attempts == 2
    journal.finish("a", "reconstruct", {"file": "r.h5", "r_factor": 0.1}, 5.0)
    again = journal.begin("a", "reconstruct", 6.0)
    assert (again.state, again.attempts, again.result) == (StepState.DONE, 2, {"file": "r.h5", "r_factor": 0.1})
    journal.begin("a", "train", 7.0)
    journal.fail("a", "train", "no", 8.0, again=False)
    assert {name: entry.state for name, entry in journal.steps("a").items()} == {
        "reconstruct": StepState.DONE,
        "train": StepState.FAILED,
    }


def test_what_ran_when_the_agent_died_is_pending_again(journal: Journal, tmp_path: Path) -> None:
    journal.enter("a", {}, 1.0)
    journal.begin("a", "reconstruct", 1.0)
    journal.finish("a", "reconstruct", 1, 1.0)
    journal.begin("a", "train", 1.0)
    after = Journal(tmp_path / "work" / "journal.sqlite")
    assert after.recover(2.0) == [("a", "train")]
    assert after.steps("a")["train"].state is StepState.PENDING
    assert after.recover(3.0) == []


@pytest.mark.server
def test_kill_9_loses_nothing_that_was_told(tmp_path: Path) -> None:
    path = tmp_path / "journal.sqlite"
    writer = subprocess.Popen([sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, text=True)
    assert writer.stdout is not None
    told = -1
    while told < 12:
        told = int(writer.stdout.readline())
    os.kill(writer.pid, signal.SIGKILL)
    told = max([told, *map(int, writer.stdout.read().split())])
    writer.wait()
    journal = Journal(path)
    journal.recover(0.0)
    scans = journal.scans()
    assert [scan.number for scan in scans] == list(range(1, len(scans) + 1))
    assert len(scans) >= told + 1
    for scan in scans[: told + 1]:
        assert scan.outcome == "done"
        assert [step.state for step in journal.steps(scan.key).values()] == [StepState.DONE] * 2
    assert all(step.state is not StepState.RUNNING for scan in scans for step in journal.steps(scan.key).values())


def test_the_policy_is_kept_and_its_changes_are_logged(journal: Journal, tmp_path: Path) -> None:
    assert journal.policy() == PolicyState()
    active = PolicyState(Mode.ACTIVE, within=1, last_looked_s=5.0)
    journal.keep_policy(active, "the first model is live", 6.0)
    journal.keep_policy(PolicyState(Mode.ACTIVE, within=2, last_looked_s=7.0), "one more", 8.0)
    paused = PolicyState(Mode.PAUSED, 2, None, Mode.ACTIVE)
    journal.keep_policy(paused, "paused by the operator", 9.0)
    assert Journal(tmp_path / "work" / "journal.sqlite").policy() == paused
    assert journal.transitions() == [
        (6.0, "Active", "the first model is live"),
        (9.0, "Paused", "paused by the operator"),
    ]


def test_a_decision_is_a_step_that_is_done(journal: Journal) -> None:
    journal.enter("a", {}, 1.0)
    state = PolicyState(Mode.ACTIVE, last_looked_s=2.0)
    journal.decide("a", "plan", state, {"judge": True}, "active: judge by this scan", 2.0)
    step = journal.steps("a")["plan"]
    assert (step.state, step.result, step.message) == (StepState.DONE, {"judge": True}, "active: judge by this scan")
    assert journal.policy() == state
    assert journal.transitions() == [(2.0, "Active", "active: judge by this scan")]


def test_of_the_pushes_that_wait_the_newest_wins(journal: Journal) -> None:
    assert journal.waiting_push == ""
    journal.want_push("old")
    journal.want_push("new")
    journal.pushed("old")
    assert journal.waiting_push == "new"
    journal.pushed("new")
    assert journal.waiting_push == ""


def test_threads_and_a_second_process_share_it(journal: Journal, tmp_path: Path) -> None:
    other = Journal(tmp_path / "work" / "journal.sqlite")
    entered: list[bool] = []

    def enter(book: Journal) -> None:
        for number in range(40):
            entered.append(book.enter(f"s{number}", {}, 0.0))

    threads = [threading.Thread(target=enter, args=(book,)) for book in (journal, other, journal)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(entered) == 40
    assert [scan.number for scan in journal.scans()] == list(range(1, 41))


@pytest.mark.parametrize(
    "content", [b"not a database, but long enough to be looked at as one" * 30, b"SQLite format 3\0"]
)
def test_a_foreign_file(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "journal.sqlite"
    path.write_bytes(content)
    with pytest.raises(AgentError, match="journal failed"):
        Journal(path)


def test_a_journal_of_a_later_version(tmp_path: Path) -> None:
    path = tmp_path / "journal.sqlite"
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA user_version=99")
    with pytest.raises(AgentError, match="version 99"):
        Journal(path)


def test_a_file_with_other_tables_is_told_at_once(tmp_path: Path) -> None:
    """No patience helps: the statement would never succeed."""

    class Patience:
        def refused(self, reason: str) -> None:
            raise AssertionError(f"waits: {reason}")

        def done(self) -> None:
            raise AssertionError("waited")

    path = tmp_path / "journal.sqlite"
    with closing(sqlite3.connect(path)) as database:
        database.execute("CREATE TABLE scans (something TEXT)")
    with pytest.raises(AgentError, match=r"no such column|has no column"):
        Journal(path, patience=Patience()).enter("a", {}, 1.0)
