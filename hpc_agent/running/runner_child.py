"""`python -m ptychostream.hpc_agent.running.runner_child MODULE ARGUMENT…`: a child that dies with its parent.

The parent holds the other end of the child's stdin. Where it closes, however the parent ended, the child ends with
all that it has started: an orphan would go on training what the next agent trains as well.
"""

from __future__ import annotations

import os
import runpy
import select
import signal
import sys
import threading
import time
from collections.abc import Collection

STOP_S = 5.0
"""Between the request to end and the kill."""


def end_when_closed(descriptors: Collection[int]) -> None:
    """End the process group when the other end of one of these pipes is closed; a thread waits for it."""
    threading.Thread(target=_end_when_closed, args=(descriptors,), name="parent", daemon=True).start()


def _end_when_closed(descriptors: Collection[int]) -> None:
    closed = select.poll()
    for descriptor in descriptors:
        closed.register(descriptor, 0)  # the hang-up is always told; what can be read is not read here
    closed.poll()
    group = os.getpgid(0)
    os.killpg(group, signal.SIGTERM)
    time.sleep(STOP_S)
    os.killpg(group, signal.SIGKILL)


def main() -> None:
    module, *arguments = sys.argv[1:]
    end_when_closed([0])
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
