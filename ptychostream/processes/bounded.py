"""Runs a module in a child process with limits of memory and time. What the child may do to itself stays in the child.

`python -m ptychostream.processes.bounded MEMORY PARENT MODULE ARGUMENT…` is that child.
"""

from __future__ import annotations

import contextlib
import os
import resource
import runpy
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from ptychostream.processes.child import end_with_parent

_LOOK_S = 0.05
_NO_MEMORY = 86
"""Exit status of a child that was refused memory."""
_LEAST_MEMORY = 1 << 30
_STATUS = Path("/proc/self/status")
_OUT_OF_MEMORY_SCORE = Path("/proc/self/oom_score_adj")


@dataclass(frozen=True)
class Bounds:
    """Limits of a child.

    Attributes
    ----------
    memory_bytes
        Memory that it may allocate: Linux counts all private memory that can be written (RLIMIT_DATA).
    time_s
        Time until it is killed.
    """

    memory_bytes: int
    time_s: float


@dataclass(frozen=True)
class Ended:
    """How a child ended.

    Attributes
    ----------
    output
        What it wrote to its standard output.
    fault
        Why it did not end by itself with status 0, in words; "": it did.
    given_up
        The caller ended it.
    """

    output: bytes
    fault: str
    given_up: bool = False


def share_of_memory(share: float) -> int:
    """Bytes of a share of this machine's memory, 1 GiB at least."""
    whole = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return max(_LEAST_MEMORY, int(share * whole))


def run_bounded(
    module: str,
    arguments: Sequence[str],
    bounds: Bounds,
    *,
    given: bytes = b"",
    give_up: threading.Event | None = None,
) -> Ended:
    """Run `python -m module arguments…` and wait for its end.

    Parameters
    ----------
    given
        Its standard input.
    give_up
        Ends it when set.

    Raises
    ------
    OSError
        It cannot be started.
    KeyboardInterrupt
        It was interrupted.
    """
    words = [str(bounds.memory_bytes), str(os.getpid()), module, *arguments]
    child = subprocess.Popen(
        [sys.executable, "-m", "ptychostream.processes.bounded", *words],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    assert child.stdin is not None
    feeding = threading.Thread(target=_feed, args=(child.stdin, given), daemon=True)
    feeding.start()
    child.stdin = None  # `communicate` forgets the rest of its input when it is called again
    deadline = time.monotonic() + bounds.time_s
    try:
        while True:
            try:
                output, _ = child.communicate(timeout=_LOOK_S)
                break
            except subprocess.TimeoutExpired:
                if give_up is not None and give_up.is_set():
                    return Ended(b"", "was given up", given_up=True)
                if time.monotonic() >= deadline:
                    return Ended(b"", f"was not done within {bounds.time_s:g} s")
    finally:
        if child.poll() is None:
            child.kill()
            child.communicate()
        feeding.join()  # its pipe has ended with the child
    if child.returncode == -signal.SIGINT:
        raise KeyboardInterrupt
    return Ended(output, _fault(child.returncode, bounds))


def _feed(pipe: IO[bytes], given: bytes) -> None:
    with contextlib.suppress(BrokenPipeError), pipe:
        pipe.write(given)


def limit_memory(memory_bytes: int) -> None:
    """Limit the memory that this process may allocate from here on, for good. A core file is not written."""
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    most = memory_bytes if hard == resource.RLIM_INFINITY else min(memory_bytes, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (most, most))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def status_bytes(name: str) -> int:
    """A figure of this process's memory as Linux tells it, such as VmRSS; 0 where the system does not say."""
    if not _STATUS.exists():
        return 0
    lines = _STATUS.read_text(encoding="ascii", errors="replace").splitlines()
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith(f"{name}:")), 0)


def peak_bytes() -> int:
    """The largest memory that this process has had resident; 0 where the system does not say.

    What getrusage gives is, after a start, that of the process that started this one.
    """
    return status_bytes("VmHWM")


def main() -> None:
    memory, parent, module, *arguments = sys.argv[1:]
    limit_memory(int(memory))
    with contextlib.suppress(OSError):  # where memory runs out, this process goes first
        _OUT_OF_MEMORY_SCORE.write_text("1000", encoding="ascii")
    end_with_parent(int(parent))
    sys.argv = [module, *arguments]
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    except MemoryError:
        sys.stdout.flush()
        os._exit(_NO_MEMORY)


def _fault(status: int, bounds: Bounds) -> str:
    limit = f"the limit of its memory is {bounds.memory_bytes / (1 << 20):,.0f} MiB"
    if status == 0:
        return ""
    if status == _NO_MEMORY:
        return f"needs more memory than it may have: {limit}"
    if status < 0:
        return f"crashed ({signal.Signals(-status).name}); {limit}"
    return f"failed with status {status}; {limit}"


if __name__ == "__main__":
    main()
