"""The reference of the records, as `python -m ptychostream.ioc.records.record_table` prints it."""

from __future__ import annotations

import subprocess
import sys


def pages() -> dict[str, str]:
    """records.md."""
    # In a process of its own: the database holds the records of one IOC for each process.
    command = [sys.executable, "-m", "ptychostream.ioc.records.record_table"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    return {"records.md": done.stdout}
