"""One agent at a time in a work folder: a lock that ends with its process, however that ends."""

from __future__ import annotations

import hashlib
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ptychostream.errors import AgentError
from ptychostream.hpc_agent.journal.journal import Journal

try:
    import fcntl
except ImportError:  # Windows: the journal's lease alone guards the folder
    fcntl = None  # type: ignore[assignment]


@contextmanager
def locked(folder: Path, journal: Journal) -> Iterator[None]:
    """Hold the folder; a lease that an agent of this machine left when it was killed does not stand in the way.

    Raises
    ------
    AgentError
        Another agent of this machine, or of another one that shares the file system's locks, is at work here.
    """
    if fcntl is None:
        yield
        return
    with (folder / "agent.lock").open("ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            what = f"the agent {journal.lease_holder} is at work here"
            raise AgentError(
                what, where=str(folder), remedy="stop that agent, or give this one another work folder"
            ) from error
        except OSError:  # a file system without locks: the lease has to run out
            yield
            return
        holder = journal.lease_holder
        if holder.rpartition(":")[0] == socket.gethostname():
            journal.give_lease(holder)
        yield


def agent_name(folder: Path) -> str:
    """Of the agent of a work folder, the same after a restart: who has the edge's lease goes on having it."""
    path = folder.resolve()
    host = socket.gethostname().partition(".")[0]
    return f"{host[:16]}:{path.name[:12]}-{hashlib.sha256(str(path).encode()).hexdigest()[:6]}"
