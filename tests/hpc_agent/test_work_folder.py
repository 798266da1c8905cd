"""One agent at a time in a work folder, and what an agent leaves on the disk."""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from small_disks import fill, small_disk

from ptychostream.errors import AgentError
from ptychostream.hpc_agent.disk_room import DiskRoom, StoppedError
from ptychostream.hpc_agent.folder import held
from ptychostream.hpc_agent.journal.journal import Journal
from ptychostream.hpc_agent.journal.lease import NAME, Lease, read
from ptychostream.hpc_agent.tidying import (
    COPIES,
    JournalCopies,
    clear_old_scans,
    remove_leftovers,
    temporary,
)
from ptychostream.storage.atomic import temporary_beside
from ptychostream.storage.file_systems import file_system

MOUNTS = """\
21 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
30 21 0:40 / /beamline rw,relatime shared:2 - nfs4 server:/x rw,vers=4.2,local_lock=none
31 21 0:41 / /old\\040disk rw shared:3 - nfs server:/y rw,vers=3,nolock,local_lock=all
32 30 0:42 / /beamline/scratch rw - lustre mgs:/z rw,localflock
33 21 0:43 / /home rw - fuse.sshfs me@host: rw
broken line
"""


@pytest.fixture
def room(tmp_path: Path) -> DiskRoom:
    return DiskRoom(tmp_path, again_s=0.05)


def nothing(_: object) -> None:
    """For what is not expected to happen."""


def test_a_lease_of_the_dead_does_not_stand_in_the_way_of_the_living(tmp_path: Path, room: DiskRoom) -> None:
    (tmp_path / NAME).write_text(f'{{"holder": "{socket.gethostname()}:1:abc", "lasts_s": 30}}')
    began = time.monotonic()
    with (
        held(tmp_path, room, nothing),
        pytest.raises(AgentError, match="is at work here"),
        held(tmp_path, room, nothing),
    ):
        pass
    assert time.monotonic() - began < 20, "the lock says that the agent of this machine is dead"
    assert not (tmp_path / NAME).exists(), "released"


def test_an_agent_of_another_host_is_watched(tmp_path: Path, room: DiskRoom) -> None:
    other = Lease(tmp_path, "elsewhere:1:abc", 0.5, wait=lambda _: False)
    assert other.take(sure=True)
    ended = threading.Event()

    def renew() -> None:
        while not ended.wait(0.05):
            other.renew()

    living = threading.Thread(target=renew)
    living.start()
    try:
        with pytest.raises(AgentError, match=r"elsewhere:1:abc is at work here"), held(tmp_path, room, nothing):
            pass
    finally:
        ended.set()
        living.join()
    with held(tmp_path, room, nothing, lasts_s=0.5):
        assert str(read(tmp_path / NAME)["holder"]).startswith(socket.gethostname())


def test_an_agent_that_lost_its_folder_is_told(tmp_path: Path, room: DiskRoom) -> None:
    lost: list[AgentError] = []
    with held(tmp_path, room, lost.append, lasts_s=0.3):
        (tmp_path / NAME).write_text('{"holder": "elsewhere:1:abc", "lasts_s": 0.3}')
        deadline = time.monotonic() + 30
        while not lost:
            assert time.monotonic() < deadline
            time.sleep(0.01)
    assert "elsewhere:1:abc has taken the work folder" in str(lost[0])
    assert read(tmp_path / NAME)["holder"] == "elsewhere:1:abc", "it is not given away"


def test_a_folder_without_locks_is_said(tmp_path: Path, room: DiskRoom, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_locks(*_: object) -> None:
        raise OSError(errno.ENOTSUP, "Operation not supported")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    said: list[str] = []
    with held(tmp_path, room, nothing, said.append, lasts_s=0.2):
        assert said == [f"{tmp_path} has no locks that other hosts see: only the lease keeps a second agent out"]
        with pytest.raises(AgentError, match="is at work here"), held(tmp_path, room, nothing, nothing, lasts_s=0.2):
            pass


def test_file_systems_that_hosts_share(tmp_path: Path) -> None:
    mounts = tmp_path / "mountinfo"
    mounts.write_text(MOUNTS)
    found = {
        name: (found.kind, found.shared, found.shares_locks)
        for name in ("/x", "/beamline/a", "/old disk/a", "/beamline/scratch/a", "/home/a")
        for found in [file_system(Path(name), mounts)]
    }
    assert found == {
        "/x": ("ext4", False, True),
        "/beamline/a": ("nfs4", True, True),
        "/old disk/a": ("nfs", True, False),
        "/beamline/scratch/a": ("lustre", True, False),
        "/home/a": ("fuse.sshfs", True, True),
    }
    assert file_system(tmp_path).kind and not file_system(tmp_path).shared
    assert file_system(Path("/x"), tmp_path / "none").kind == ""


@pytest.mark.parametrize(("shared", "mode"), [(False, "wal"), (True, "delete")])
def test_the_journal_on_a_shared_file_system_needs_no_shared_memory(tmp_path: Path, shared: bool, mode: str) -> None:
    path = tmp_path / "journal.sqlite"
    with closing(Journal(path)) as journal:  # as before the folder was moved there
        journal.enter("1", {}, 0.0)
    with closing(Journal(path, shared=shared)) as journal, closing(sqlite3.connect(path)) as other:
        journal.enter("2", {}, 0.0)
        assert other.execute("PRAGMA journal_mode").fetchone() == (mode,)
        assert (path.with_name("journal.sqlite-shm").exists()) is not shared
        assert [scan.key for scan in journal.scans()] == ["1", "2"]


def test_leftovers_of_kills_are_cleared_at_the_start(tmp_path: Path) -> None:
    kept = [tmp_path / name for name in ("journal.sqlite", "corpus/1.h5", "scans/1/r.h5", "scans/1/train-1/log.txt")]
    left = [temporary_beside(path) for path in kept]
    left += [temporary(tmp_path) / "ptychostream-collect-x" / "step" / "arguments.json"]
    runs = [tmp_path / "parsl" / f"{number:03}" / "submit" for number in range(8)]
    mine = [tmp_path / "models" / f".0123456789ab.tmp.{'a' * 64}" / "model.onnx", tmp_path / ".notes.tmp.txt"]
    for path in [*kept, *left, *runs, *mine]:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    assert remove_leftovers(tmp_path) == len(left) + 3
    assert all(path.exists() for path in kept + mine) and not any(path.exists() for path in left)
    assert [path.exists() for path in runs] == [False] * 3 + [True] * 5
    assert remove_leftovers(tmp_path) == 0


def test_the_results_of_old_scans_go(tmp_path: Path) -> None:
    with closing(Journal(tmp_path / "journal.sqlite")) as journal:
        for number in range(50):
            key = f"s{number}"
            journal.enter(key, {}, 0.0)
            if number % 2:  # the others are passed over
                journal.begin(key, "reconstruct", 0.0)
                (tmp_path / "scans" / key).mkdir(parents=True)
            journal.close_scan(key, "reconstructed")
            clear_old_scans(tmp_path, journal, keep=4)
        journal.enter("open", {}, 0.0)
        journal.begin("open", "reconstruct", 0.0)
        assert clear_old_scans(tmp_path, journal, keep=4) == 0
        assert sorted(path.name for path in (tmp_path / "scans").iterdir()) == ["s43", "s45", "s47", "s49"]


def test_the_journal_is_copied_once_a_day_and_the_copy_can_be_used(tmp_path: Path) -> None:
    days, seconds = ["2026-11-30"], [0.0]
    with closing(Journal(tmp_path / "journal.sqlite")) as journal:
        copies = JournalCopies(tmp_path / "journal.sqlite", lambda: days[-1], lambda: seconds[-1])
        journal.enter("1", {}, 0.0)
        assert copies.look() and not copies.look()
        journal.enter("2", {}, 0.0)
        seconds.append(4000.0)
        assert not copies.look(), "one a day"
        for number in range(1, 10):
            days.append(f"2026-12-{number:02}")
            seconds.append(seconds[-1] + 86400)
            assert copies.look()
    names = sorted(path.name for path in (tmp_path / COPIES).iterdir())
    assert names == [f"journal-2026-12-{number:02}.sqlite" for number in range(3, 10)]
    with closing(Journal(tmp_path / COPIES / names[-1])) as copy:
        assert [scan.key for scan in copy.scans()] == ["1", "2"]


def test_a_copy_that_fails_is_no_failure_of_the_agent(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with closing(Journal(tmp_path / "journal.sqlite")):
        (tmp_path / COPIES).write_text("in the way")
        assert not JournalCopies(tmp_path / "journal.sqlite").look()
    assert "the journal is not copied" in caplog.text


# A full disk

HOLD = """
import sys
from pathlib import Path
from ptychostream.hpc_agent.disk_room import DiskRoom, StoppedError
from ptychostream.hpc_agent.folder import held
work = Path(sys.argv[1])
lost = []
with held(work, DiskRoom(work), lost.append, lasts_s=0.6):
    print("held", flush=True)
    sys.stdin.read()
    print("lost" if lost else "kept", flush=True)
"""


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of a megabyte. It needs root."""
    with small_disk(tmp_path / "small") as folder:
        yield folder


@pytest.mark.server
def test_a_lease_is_renewed_on_a_full_disk(disk: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(disk)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None and holder.stdin is not None
        assert holder.stdout.readline() == "held\n"
        fill(disk)
        seen = []
        for _ in range(20):
            seen.append(read(disk / NAME)["count"])
            time.sleep(0.1)
        assert seen[-1] - seen[0] >= 5, "it moves several times in its 0.6 s"
        holder.stdin.close()
        assert holder.stdout.readline() == "kept\n"


def until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.server
def test_the_journal_waits_for_room_and_loses_nothing(disk: Path) -> None:
    room, said = DiskRoom(disk, again_s=0.05), []
    room.on_change = said.append
    with closing(Journal(disk / "journal.sqlite", patience=room)) as journal:
        journal.enter("0", {}, 0.0)
        full = fill(disk)
        events = [{"file": "x" * 3000 + str(number)} for number in range(1, 9)]

        def enter() -> None:
            for number, event in enumerate(events, 1):
                assert journal.enter(str(number), event, 0.0)

        writer = threading.Thread(target=enter)
        writer.start()
        until(lambda: bool(room.reason))
        assert "full" in room.reason and "full" in said[0]
        assert journal.latest_scan() is not None, "what is read is read"
        full.unlink()
        writer.join(30)
        assert not writer.is_alive() and not room.reason and said[-1] == ""
        assert [scan.event for scan in journal.scans()] == [{}, *events]


@pytest.mark.server
def test_an_agent_that_starts_on_a_full_disk_waits(disk: Path) -> None:
    room = DiskRoom(disk, again_s=0.05)
    full = fill(disk)
    made: list[Journal] = []
    starter = threading.Thread(target=lambda: made.append(Journal(disk / "journal.sqlite", patience=room)))
    starter.start()
    until(lambda: bool(room.reason))
    assert not made
    full.unlink()
    starter.join(30)
    with closing(made[0]) as journal:
        assert journal.enter("1", {}, 0.0)


def test_no_step_begins_without_room(tmp_path: Path) -> None:
    scarce = DiskRoom(tmp_path, least_free=1 << 60, again_s=0.05)
    assert "is full" in scarce.missing()

    def wait() -> None:
        with pytest.raises(StoppedError):
            scarce.wait_for_room()

    waiter = threading.Thread(target=wait)
    waiter.start()
    until(lambda: "is full" in scarce.reason)
    scarce.stop()
    waiter.join(30)
    assert not waiter.is_alive()
    assert DiskRoom(tmp_path, least_free=1).missing() == ""
    assert "cannot be reached" in DiskRoom(tmp_path / "none").missing()
    room = DiskRoom(tmp_path)
    room.also = lambda: "the lease is overdue"
    assert room.missing() == "the lease is overdue"
    assert os.statvfs(tmp_path).f_bavail > 0
