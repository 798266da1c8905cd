"""`python -m ptychostream.hpc_agent.running.parsl_interchange PARENT`: Parsl's interchange, which ends with its parent.

Without this it would go on for ever after its parent was killed, and keep the cluster's jobs alive. A Ctrl-C at the
terminal is for the parent, which ends the interchange itself.
"""

from __future__ import annotations

import runpy
import signal
import sys

from ptychostream.processes.child import end_with_parent


def main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    end_with_parent(int(sys.argv[1]))
    runpy.run_module("parsl.executors.high_throughput.interchange", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
