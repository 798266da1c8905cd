"""Sets the niceness of a process, so that more urgent ones on its machine, such as the edge, run first."""

from __future__ import annotations

import logging
import os
from pathlib import Path

AUTOGROUP = Path("/proc/self/autogroup")

_log = logging.getLogger(__name__)


def stand_back(nice: int) -> None:
    """Set at least this niceness for this process and the ones that it starts.

    Where Linux groups processes by session (sched_autogroup, see sched(7)), the niceness of a process counts only
    within its session, and every session has the same share of the processor. So the leader of a session also sets the
    session's niceness. A process that does not lead its session leaves it unchanged.
    """
    level = max(nice, os.getpriority(os.PRIO_PROCESS, 0))
    os.setpriority(os.PRIO_PROCESS, 0, level)
    if os.getsid(0) != os.getpid() or not AUTOGROUP.exists():
        return
    try:
        AUTOGROUP.write_text(str(level), encoding="ascii")
    except OSError as error:
        _log.warning("%s: niceness %d of the session is not set: %s", AUTOGROUP, level, error.strerror or error)
