"""Where the IOC runs, for the records that iocStats has for it.

The iocStats that softioc is built with answers "<not implemented>", or -1, for these on Linux.
"""

from __future__ import annotations

import os
import socket
from pathlib import Path

from ptychostream.statements.record_text import STRING_BYTES

_LONG = 159


def whereabouts() -> dict[str, str | int]:
    """Values of the records by their names: host, kernel, process and its parent, working directory."""
    kernel, folder = os.uname(), str(Path.cwd())
    return {
        "HOSTNAME": socket.gethostname()[:STRING_BYTES],
        "KERNEL_VERS": f"{kernel.sysname} {kernel.release}"[:STRING_BYTES],
        "PROCESS_ID": os.getpid(),
        "PARENT_ID": os.getppid(),
        "APP_DIR1": folder[:STRING_BYTES],
        "APP_DIR2": folder[STRING_BYTES : 2 * STRING_BYTES],
        "APP_DIR": folder[:_LONG],
    }
