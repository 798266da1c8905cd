"""One agent at a time uses a work folder: a lock where the file system has locks, and a lease everywhere."""

from __future__ import annotations

import hashlib
import logging
import os
import secrets
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from ptychostream.errors import AgentError
from ptychostream.hpc_agent.disk_room import DiskRoom, StoppedError
from ptychostream.hpc_agent.journal.lease import NAME, Lease, read
from ptychostream.storage.file_systems import file_system

try:
    import fcntl
except ImportError:  # Windows: only the lease protects the folder
    fcntl = None  # type: ignore[assignment]

_log = logging.getLogger(__name__)

_LEASE_S = 30.0
_RENEWALS = 3  # in the time of a lease


@contextmanager
def held(
    folder: Path,
    room: DiskRoom,
    on_lost: Callable[[AgentError], None],
    say: Callable[[str], None] = _log.warning,
    lasts_s: float = _LEASE_S,
) -> Iterator[None]:
    """Keep every other agent out of the work folder while the block runs.

    Parameters
    ----------
    folder
        The work folder.
    room
        Of the folder: it waits where the disk has no room for the lock, and holds steps back when the lease is overdue.
    on_lost
        Called when another agent has taken the folder, although this one renewed its lease.
    say
        Called with a warning where the file system has no locks that other hosts see.
    lasts_s
        Another agent must see no renewal for so long before it takes the folder.

    Raises
    ------
    AgentError
        Another agent uses the folder, on this machine or on another one.
    StoppedError
        The agent stopped while it waited.
    """
    lease = Lease(folder, _own_name(), lasts_s, wait=room.pause)
    with _locked(folder, room) as sure:
        if not sure:
            say(f"{folder} has no locks that other hosts see: only the lease keeps a second agent out")
        if not room.insist(lambda: lease.take(sure), f"the lease of {folder} cannot be written"):
            raise StoppedError
        room.also = lambda: f"the lease of {folder} could not be renewed" if lease.overdue else ""
        ended = threading.Event()
        keeper = threading.Thread(target=_keep, args=(lease, ended, on_lost), name="lease", daemon=True)
        keeper.start()
        try:
            yield
        finally:
            ended.set()
            keeper.join()
            with suppress(OSError):
                lease.give()


def _keep(lease: Lease, ended: threading.Event, on_lost: Callable[[AgentError], None]) -> None:
    failing = False
    while not ended.wait(lease.lasts_s / _RENEWALS):
        try:
            lease.renew()
            failing = False
        except AgentError as error:
            on_lost(error)
            return
        except OSError as error:
            if not failing:
                _log.error("the lease cannot be renewed: %s", error)
            failing = True


@contextmanager
def _locked(folder: Path, room: DiskRoom) -> Iterator[bool]:
    """Lock the folder; yields whether the lock keeps every other agent out.

    A lease that a killed agent of this machine left behind is removed.
    """
    if fcntl is None:
        yield False
        return
    with room.insist(lambda: _lock_file(folder), f"{folder} cannot be locked") as file:
        holder = str(read(folder / NAME).get("holder", ""))
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            what = f"the agent {holder} is at work here"
            raise AgentError(
                what, where=str(folder), remedy="stop that agent, or give this one another work folder"
            ) from error
        except OSError:  # a file system without locks
            yield False
            return
        if holder.partition(":")[0] == socket.gethostname():
            (folder / NAME).unlink(missing_ok=True)
        yield file_system(folder).shares_locks


def _lock_file(folder: Path) -> IO[bytes]:
    folder.mkdir(parents=True, exist_ok=True)
    return (folder / "agent.lock").open("ab")


def _own_name() -> str:
    """A name that no other agent has, also not one in a container with the same host name and process id."""
    return f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(3)}"


def agent_name(folder: Path) -> str:
    """Name of a work folder's agent in the edge's lease. It stays the same after a restart, so the lease is kept."""
    path = folder.resolve()
    host = socket.gethostname().partition(".")[0]
    return f"{host[:16]}:{path.name[:12]}-{hashlib.sha256(str(path).encode()).hexdigest()[:6]}"
