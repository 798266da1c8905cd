"""`python -m ptychostream.hpc_agent.running.parsl_interchange PARENT`: an interchange that ends with its parent.

By itself it goes on for ever after a parent that was killed, and keeps the cluster's jobs alive with it. Ctrl-C at the
terminal is the parent's to act upon.
"""

from __future__ import annotations

import os
import runpy
import signal
import sys
import threading
import time

_LOOK_S = 0.5


def end_with(parent: int) -> None:
    """End this process once `parent` is not its parent any more."""
    while os.getppid() == parent:
        time.sleep(_LOOK_S)
    os._exit(1)


def main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=end_with, args=(int(sys.argv[1]),), name="parent", daemon=True).start()
    runpy.run_module("parsl.executors.high_throughput.interchange", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
