"""A lock that lets one agent at a time use a work folder. It ends with the agent's process."""

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
except ImportError:  # Windows: only the journal's lease protects the folder
    fcntl = None  # type: ignore[assignment]


@contextmanager
def locked(folder: Path, journal: Journal) -> Iterator[None]:
    """Lock the folder. A lease that a killed agent of this machine left behind is removed.

    Raises
    ------
    AgentError
        Another agent uses the folder, on this machine or on one that shares the file system's locks.
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
        except OSError:  # a file system without locks: only the lease protects it
            yield
            return
        holder = journal.lease_holder
        if holder.rpartition(":")[0] == socket.gethostname():
            journal.give_lease(holder)
        yield


def agent_name(folder: Path) -> str:
    """Name of a work folder's agent in the edge's lease. It stays the same after a restart, so the lease is kept."""
    path = folder.resolve()
    host = socket.gethostname().partition(".")[0]
    return f"{host[:16]}:{path.name[:12]}-{hashlib.sha256(str(path).encode()).hexdigest()[:6]}"
