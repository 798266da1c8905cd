"""The page for browsers beside the demonstration, in a process of its own."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from ptychostream.demo.processes import Child
from ptychostream.demo.pvs import POLL_S

START_S = 20.0


@contextmanager
def page(prefix: str, environment: Mapping[str, str], log: Path, port: int) -> Iterator[str]:
    """Serve the page of an IOC while the block runs.

    Parameters
    ----------
    prefix, environment
        Of the IOC.
    log
        File of the page's server.
    port
        Its TCP port, so that a browser finds it again after a restart.

    Yields
    ------
    The page's address; empty where it cannot be served, for example without the extra `web`. The reason is in the log.
    """
    with Child("ptychostream", ["web", prefix, "--port", str(port)], log, environment) as child:
        yield address_of(child, START_S)


def address_of(child: Child, timeout_s: float) -> str:
    """The address that the page's server prints; empty: it has ended, or printed none in time."""
    deadline, found = time.monotonic() + timeout_s, None
    while found is None and child.running() and time.monotonic() < deadline:
        time.sleep(POLL_S)
        found = re.search(r"^the page: (\S+)", child.log_path.read_text(encoding="utf-8"), re.MULTILINE)
    return found[1] if found else ""


def page_line(address: str, log: Path) -> str:
    """What is printed of the page."""
    return f"    {address}" if address else f"    no page for browsers: see {log}"
