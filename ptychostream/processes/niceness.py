"""How a process gives way to what is more urgent on its machine, such as the edge."""

from __future__ import annotations

import logging
import os
from pathlib import Path

AUTOGROUP = Path("/proc/self/autogroup")

_log = logging.getLogger(__name__)


def stand_back(nice: int) -> None:
    """Be at least so nice, this process and what it starts.

    Where Linux groups processes by session (sched_autogroup, see sched(7)), the niceness of a process counts within its
    session alone, and every session has the same share of the processor. So the leader of a session sets its session's
    too; in somebody else's session that is left alone.
    """
    level = max(nice, os.getpriority(os.PRIO_PROCESS, 0))
    os.setpriority(os.PRIO_PROCESS, 0, level)
    if os.getsid(0) != os.getpid() or not AUTOGROUP.exists():
        return
    try:
        AUTOGROUP.write_text(str(level), encoding="ascii")
    except OSError as error:
        _log.warning("%s: niceness %d of the session is not set: %s", AUTOGROUP, level, error.strerror or error)
