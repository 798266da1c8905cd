"""`python -m ptychostream.processes.child PARENT MODULE ARGUMENT…`: a module as a child that ends cleanly.

SIGTERM and SIGINT raise KeyboardInterrupt, which pvaPy's programs know too, also where they were ignored by who started
the parent. When the parent ends, however it does, the child ends too: an orphan would go on taking its share of the
frames, or training what the next agent trains as well.
"""

from __future__ import annotations

import os
import runpy
import signal
import sys
import threading
import time
from collections.abc import Callable
from types import FrameType

_LOOK_S = 0.5
_ORPHAN_S = 20.0
"""How long an orphan may take to end after SIGTERM."""


def end_with_parent(parent: int) -> None:
    """End this process soon after `parent`. Raises SystemExit where `parent` is not its parent any more."""
    if os.getppid() != parent:
        raise SystemExit(1)

    def wait() -> None:
        while os.getppid() == parent:
            time.sleep(_LOOK_S)

    end_after(wait)


def end_after(wait: Callable[[], object]) -> None:
    """End this process, and the group that it leads, when `wait` returns. A thread calls it."""

    def end() -> None:
        wait()
        send = os.killpg if os.getpgrp() == os.getpid() else os.kill
        send(os.getpid(), signal.SIGTERM)
        time.sleep(_ORPHAN_S)
        send(os.getpid(), signal.SIGKILL)

    threading.Thread(target=end, name="parent", daemon=True).start()


def interrupt_once(_number: int, _frame: FrameType | None) -> None:
    """Act as Ctrl-C; later signals are ignored while the process ends."""
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
