"""The folder of one run: each piece of it is written once, atomically, and never made again.

A piece that is there is whole. A run that was killed continues with the first piece that is missing.
"""

from __future__ import annotations

import fcntl
import importlib.metadata
import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ptychostream import __version__
from ptychostream.errors import ConfigError
from ptychostream.processes.hardware import cores, cpu_name
from ptychostream.storage.atomic import TEMPORARY, cannot_be_written, write_bytes_atomic

MANIFEST = "manifest.json"
LOCK = "run.lock"
PACKAGES = ("torch", "numpy", "scipy", "numba")


class OutOfTime(Exception):  # noqa: N818 - it is no error: the run continues by the same command
    """The time that this call was given is over. All finished pieces are kept."""


class RunFolder:
    """The pieces of a run.

    Parameters
    ----------
    path
        The folder. `opened` checks it first.
    minutes
        No piece is begun after so many minutes; None: no limit.
    """

    def __init__(self, path: Path, minutes: float | None = None) -> None:
        self.path = path
        self._ends = None if minutes is None else time.monotonic() + 60 * minutes

    def check_time(self) -> None:
        """Raise OutOfTime if the time of this call is over."""
        if self._ends is not None and time.monotonic() >= self._ends:
            raise OutOfTime

    def json(self, name: str, make: Callable[[], Mapping[str, Any]]) -> dict[str, Any]:
        """The values of the piece `name`; `make` is called if it is missing."""
        path = self.file(f"{name}.json", lambda path: write_json(path, make()))
        values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return values

    def file(self, name: str, write: Callable[[Path], object]) -> Path:
        """The path of the piece `name`; `write` makes the file atomically if it is missing."""
        path = self.path / name
        if not path.exists():
            self.check_time()
            path.parent.mkdir(parents=True, exist_ok=True)
            write(path)
        return path


@contextmanager
def opened(path: Path, identity: Mapping[str, Any], command: str, minutes: float | None = None) -> Iterator[RunFolder]:
    """The folder of the run that `identity` names, new or continued. No other process works in it meanwhile.

    Raises
    ------
    ConfigError
        The folder has files of something else, or of another run, or another process is at work in it.
    ScanFileError
        The folder cannot be written.
    """
    versions = {"ptychostream": __version__, **{name: importlib.metadata.version(name) for name in PACKAGES}}
    manifest = {"run": dict(identity), "versions": versions}
    try:
        path.mkdir(parents=True, exist_ok=True)
        found = _manifest(path)
        if found is not None:
            _check_same(found, manifest, path)
        with (path / LOCK).open("ab") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                remedy = "wait for its end, or give another folder"
                raise ConfigError("another process is at work here", where=str(path), remedy=remedy) from error
            calls = [] if found is None else found["calls"]
            call = {"command": command, "began": time.strftime("%Y-%m-%dT%H:%M:%S%z")}
            machine = {"processor": cpu_name(), "cores": cores()}
            write_json(path / MANIFEST, {**manifest, "calls": [*calls, call | machine]})
            yield RunFolder(path, minutes)
    except OSError as error:
        raise cannot_be_written(path, error) from error


def write_json(path: Path, values: Mapping[str, Any]) -> None:
    """Write plain values atomically. Raises OSError."""
    write_bytes_atomic(path, (json.dumps(values, indent=2, allow_nan=False) + "\n").encode())


def _manifest(path: Path) -> dict[str, Any] | None:
    """The manifest of the run in the folder; None: the folder is empty. Raises ConfigError for any other folder."""
    remedy = "give a new or empty folder"
    try:
        manifest = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
        assert {"run", "versions", "calls"} <= set(manifest)
    except FileNotFoundError:
        strange = sorted(entry.name for entry in path.iterdir() if not TEMPORARY.fullmatch(entry.name))
        if set(strange) <= {LOCK}:
            return None
        some = ", ".join(strange[:5]) + (" …" if len(strange) > 5 else "")
        raise ConfigError(f"holds no run of reproduce, but {some}", where=str(path), remedy=remedy) from None
    except (ValueError, AssertionError) as error:
        what = f"{MANIFEST} is not that of a run of reproduce"
        raise ConfigError(what, where=str(path), remedy=remedy) from error
    return dict(manifest)


def _check_same(found: Mapping[str, Any], wanted: Mapping[str, Any], path: Path) -> None:
    differing = [
        f"{name} {found[part].get(name)} there, {value} here"
        for part in ("run", "versions")
        for name, value in wanted[part].items()
        if found[part].get(name) != value
    ]
    if differing:
        what = f"holds another run: {'; '.join(differing)}"
        raise ConfigError(what, where=str(path), remedy="give the options of that run, or a new folder")
