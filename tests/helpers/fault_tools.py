"""What the fault tests need besides the soak's own stage: a client's put, and a disk that is full."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from p4p.client.thread import Context


@contextlib.contextmanager
def pva_client(environment: Mapping[str, str]) -> Iterator[Any]:
    """A p4p context for a set of processes."""
    epics = {name: value for name, value in environment.items() if name.startswith("EPICS_PVA")}
    context = Context("pva", conf=epics, useenv=False, nt=False)
    try:
        yield context
    finally:
        context.close()


def small_disk(folder: Path, size: str = "64k") -> list[str] | None:
    """Words that run a command with a file system of `size` mounted on `folder`; None where that is not permitted.

    The mount is in a namespace of that process: others see it under `/proc/<pid>/root/<folder>`.
    """
    unshare = shutil.which("unshare")
    if unshare is None:
        return None
    mount = f'mount -t tmpfs -o size={size} tmpfs "$0" && exec "$@"'
    words = [unshare, "--user", "--map-root-user", "--mount", "sh", "-c", mount, str(folder)]
    tried = subprocess.run([*words, "true"], capture_output=True, timeout=10, check=False)
    return words if tried.returncode == 0 else None
