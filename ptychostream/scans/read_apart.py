"""Reads a file in a child process with limits of memory and time: a damaged or hostile file ends the child only."""

from __future__ import annotations

from collections.abc import Sequence

from ptychostream.errors import ScanFileError
from ptychostream.processes.bounded import Bounds, run_bounded


def read_apart(module: str, path: str, words: Sequence[str], bounds: Bounds, remedy: str) -> bytes:
    """Run `python -m module path words…`, which reads the file. Returns what it wrote to its standard output.

    Parameters
    ----------
    remedy
        What the user can do where the file is at fault.

    Raises
    ------
    ScanFileError
        The child crashed, needed more memory or time than it may, or could not start.
    """
    try:
        ended = run_bounded(module, [path, *words], bounds)
    except OSError as error:
        what = f"the process that reads it cannot be started: {error.strerror or error}"
        raise ScanFileError(what, where=path, remedy="free memory or processes of this machine") from error
    if ended.fault:
        raise ScanFileError(f"reading it {ended.fault}", where=path, remedy=remedy)
    return ended.output
