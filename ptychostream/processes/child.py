"""`python -m ptychostream.processes.child PARENT MODULE ARGUMENT…`: a module as a child that ends cleanly.

SIGTERM acts as Ctrl-C does, which is what pvaPy's programs know; and where the parent dies, however it does, the child
ends too: an orphan would go on taking its share of the frames.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import runpy
import signal
import sys
from types import FrameType

_PR_SET_PDEATHSIG = 1


def end_with_parent(parent: int) -> None:
    """Ask for SIGTERM when the parent ends (Linux); raise SystemExit where it has ended already."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:
        raise SystemExit(1)


def interrupt_once(_number: int, _frame: FrameType | None) -> None:
    """Act as Ctrl-C; what comes while it ends is ignored."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    raise KeyboardInterrupt


def main() -> None:
    parent, module, *arguments = sys.argv[1:]
    signal.signal(signal.SIGTERM, interrupt_once)
    signal.signal(signal.SIGINT, interrupt_once)
    end_with_parent(int(parent))
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
