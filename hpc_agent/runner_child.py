"""`python -m ptychostream.hpc_agent.runner_child MODULE ARGUMENT…`: a module as a child that dies with its parent.

The parent holds the other end of the child's stdin. Where it closes, however the parent ended, the child ends with
all that it has started: an orphan would go on training what the next agent trains as well.
"""

from __future__ import annotations

import os
import runpy
import signal
import sys
import threading
import time

STOP_S = 5.0
"""Between the request to end and the kill."""


def end_with_parent() -> None:
    """Wait for the end of stdin, then end the process group."""
    while os.read(0, 4096):
        pass
    group = os.getpgid(0)
    os.killpg(group, signal.SIGTERM)
    time.sleep(STOP_S)
    os.killpg(group, signal.SIGKILL)


def main() -> None:
    module, *arguments = sys.argv[1:]
    threading.Thread(target=end_with_parent, name="parent", daemon=True).start()
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
