"""The lease of a work folder: nobody's clock matters, a renewal needs no room on the disk, one agent has it."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from ptychostream.errors import AgentError
from ptychostream.hpc_agent.journal.lease import NAME, Lease, read


class Hosts:
    """Agents of several hosts that share a folder; each may act while another one waits."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.now = 0.0
        self.meanwhile = lambda: None
        self.waited = 0.0

    def wait(self, seconds: float) -> bool:
        self.now += seconds
        self.waited += seconds
        self.meanwhile()
        return False

    def agent(self, name: str, ahead_s: float = 0.0) -> Lease:
        """An agent whose clock is ahead by so much."""
        return Lease(self.folder, name, 30.0, clock=lambda: self.now + ahead_s, wait=self.wait)


@pytest.fixture
def hosts(tmp_path: Path) -> Hosts:
    return Hosts(tmp_path)


@pytest.mark.parametrize("ahead_s", [-1e6, 0.0, 1e6])
def test_a_lease_that_moves_is_never_taken(hosts: Hosts, ahead_s: float) -> None:
    one, two = hosts.agent("one"), hosts.agent("two", ahead_s)
    assert one.take(sure=True)
    hosts.meanwhile = lambda: one.renew() if hosts.now % 10 < 1.5 else None
    with pytest.raises(AgentError, match="the agent one is at work here"):
        two.take(sure=True)
    assert read(hosts.folder / NAME)["holder"] == "one"


@pytest.mark.parametrize("ahead_s", [-1e6, 0.0, 1e6])
def test_a_lease_is_taken_after_it_stood_still_for_its_whole_time(hosts: Hosts, ahead_s: float) -> None:
    one, two = hosts.agent("one"), hosts.agent("two", ahead_s)
    assert one.take(sure=True)
    os.utime(hosts.folder / NAME, (1e9 + ahead_s, 1e9 + ahead_s))  # by the clock of the server
    assert two.take(sure=True) and hosts.waited >= 30.0
    with pytest.raises(AgentError, match="two has taken the work folder"):
        one.renew()
    assert one.overdue and not two.overdue


def test_a_renewal_late_in_its_time_keeps_it(hosts: Hosts) -> None:
    one, two = hosts.agent("one"), hosts.agent("two")
    assert one.take(sure=True)
    hosts.meanwhile = lambda: one.renew() if hosts.now >= 29.0 else None
    with pytest.raises(AgentError, match="one is at work"):
        two.take(sure=True)


def test_a_released_lease_is_free_at_once(hosts: Hosts) -> None:
    one, two = hosts.agent("one"), hosts.agent("two")
    assert one.take(sure=True)
    two.give()  # not its own
    assert read(hosts.folder / NAME)["holder"] == "one"
    one.give()
    assert two.take(sure=True) and hosts.waited == 0


def test_released_while_it_is_watched(hosts: Hosts) -> None:
    one, two = hosts.agent("one"), hosts.agent("two")
    assert one.take(sure=True)
    hosts.meanwhile = one.give
    assert two.take(sure=True) and hosts.waited < 30.0


def test_of_two_that_take_it_at_the_same_moment_one_has_it(hosts: Hosts) -> None:
    """Where the file system has no locks."""
    one, two = hosts.agent("one"), hosts.agent("two")

    def take() -> None:
        hosts.meanwhile = lambda: None
        (hosts.folder / NAME).unlink()  # two had looked before one wrote
        assert two.take()

    hosts.meanwhile = take
    with pytest.raises(AgentError, match="two has taken"):
        one.take()


@pytest.mark.parametrize("content", [b"{", b"[1]", b'{"holder": 7}', b"\xff" * 600])
def test_a_damaged_lease_has_to_stand_still_as_well(hosts: Hosts, content: bytes) -> None:
    (hosts.folder / NAME).write_bytes(content)
    two = hosts.agent("two")
    assert two.take(sure=True) and hosts.waited >= 30.0
    assert json.loads((hosts.folder / NAME).read_bytes())["holder"] == "two"
    two.renew()


def test_an_absurd_time_is_bounded(hosts: Hosts) -> None:
    (hosts.folder / NAME).write_text(json.dumps({"holder": "one", "lasts_s": 1e9}))
    assert hosts.agent("two").take(sure=True) and hosts.waited < 700


def test_a_renewal_writes_in_place_and_where_that_fails_the_time_moves(
    hosts: Hosts, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = hosts.agent("one")
    assert one.take(sure=True)
    path = hosts.folder / NAME
    inode, size = path.stat().st_ino, path.stat().st_size
    one.renew()
    assert (path.stat().st_ino, path.stat().st_size) == (inode, size)

    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    before = read(path)
    one.renew()
    assert read(path) != before and not one.overdue


def test_a_lease_that_cannot_be_renewed_is_overdue(hosts: Hosts, monkeypatch: pytest.MonkeyPatch) -> None:
    one = hosts.agent("one")
    assert one.take(sure=True)

    def broken(*_: object, **__: object) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "pwrite", broken)
    monkeypatch.setattr(os, "utime", broken)
    hosts.now += 29.0
    with pytest.raises(OSError, match="Input"):
        one.renew()
    assert not one.overdue
    hosts.now += 1.0
    assert one.overdue
