"""The files of the corpus: what each of them holds, and an index, so that not every file is opened for each scan."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ptychostream.errors import ScanFileError
from ptychostream.storage.atomic import write_bytes_atomic
from ptychostream.storage.hdf5_heaps import open_checked

KIND = "ptychostream corpus"
_INDEX = ".index.json"
_VERSION = 1


@dataclass(frozen=True)
class Shard:
    """What one file of the corpus holds.

    Attributes
    ----------
    key, path
        The scan's name, and its file.
    pairs, validation
        Number of pairs, and of those that are never trained on.
    measured
        Number of measured pairs, which come first; the others are simulated.
    """

    key: str
    path: Path
    pairs: int
    validation: int
    measured: int
    input_shape: tuple[int, int]
    output_shape: tuple[int, int]
    pixel_m: float
    number: int
    provenance: Mapping[str, Any]


def shard_files(folder: Path) -> list[Path]:
    """The files of the corpus in `folder`, read or not."""
    return sorted(path for path in folder.glob("*.h5") if not path.name.startswith("."))


def read_shard(path: Path) -> Shard:
    """What a corpus file holds.

    Raises
    ------
    ScanFileError
        The file is missing, damaged or no corpus file.
    """
    remedy = "remove that file; its scan can be labelled again"
    try:
        with open_checked(path) as file:
            if file.attrs.get("kind") != KIND:
                raise ScanFileError("no corpus file", where=str(path), remedy=remedy)
            attributes = dict(file.attrs)
            counts, phase = file["counts"], file["phase"]
            return Shard(
                key=str(attributes["key"]),
                path=path,
                pairs=len(counts),
                validation=int(file["validation"][()].sum()),
                measured=int(attributes["measured"]),
                input_shape=counts.shape[1:],
                output_shape=phase.shape[1:],
                pixel_m=float(attributes["pixel_m"]),
                number=int(attributes["number"]),
                provenance=json.loads(attributes["provenance"]),
            )
    except (OSError, KeyError, ValueError, AttributeError, TypeError) as error:
        raise ScanFileError(f"no corpus file: {error}", where=str(path), remedy=remedy) from error


class ShardIndex:
    """What the files of a folder hold, kept in a file of that folder.

    A file is opened when its name, size or time of change is not in the index. The index is only a cache: where it is
    missing, damaged or cannot be written, the files are opened.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._path = folder / _INDEX
        self._known: dict[str, dict[str, Any]] = {}
        self._known_state: tuple[int, int, int] | None = None  # of the index, when it was read or written

    def shards(self) -> list[Shard]:
        """The readable files."""
        known = self._load()
        found: dict[str, dict[str, Any]] = {}
        for path in shard_files(self._folder):
            try:
                status = path.stat()
            except OSError:
                continue  # it was removed meanwhile
            state = [status.st_size, status.st_mtime_ns]
            entry = known.get(path.name)
            if entry is None or entry["state"] != state:
                entry = {"state": state, "shard": _content(path)}
            found[path.name] = entry
        if found != known:
            self._save(found)
        return [_shard(self._folder / name, entry["shard"]) for name, entry in found.items() if entry["shard"]]

    def _load(self) -> dict[str, dict[str, Any]]:
        """The entries of the index file, which is read again where it has changed."""
        state = self._state()
        if state is None or state != self._known_state:
            self._known, self._known_state = self._read(), state
        return self._known

    def _read(self) -> dict[str, dict[str, Any]]:
        try:
            content = json.loads(self._path.read_bytes())
            files: dict[str, dict[str, Any]] = content["files"] if content["version"] == _VERSION else {}
            for name, entry in files.items():
                assert len(entry["state"]) == 2
                if entry["shard"]:
                    _shard(self._folder / name, entry["shard"])
        except (OSError, ValueError, KeyError, TypeError, AttributeError, AssertionError):
            return {}
        return files

    def _save(self, files: dict[str, dict[str, Any]]) -> None:
        with suppress(OSError):  # the next one who reads opens the files again
            write_bytes_atomic(self._path, json.dumps({"version": _VERSION, "files": files}).encode())
            self._known, self._known_state = files, self._state()

    def _state(self) -> tuple[int, int, int] | None:
        try:
            status = self._path.stat()
        except OSError:
            return None
        return status.st_ino, status.st_size, status.st_mtime_ns


def _content(path: Path) -> dict[str, Any] | None:
    """What a file holds, as JSON; None: it cannot be read."""
    try:
        shard = read_shard(path)
    except ScanFileError:
        return None
    plain = {name: value for name, value in vars(shard).items() if name != "path"}
    return {**plain, "input_shape": list(shard.input_shape), "output_shape": list(shard.output_shape)}


def _shard(path: Path, content: Mapping[str, Any]) -> Shard:
    shapes = {name: tuple(content[name]) for name in ("input_shape", "output_shape")}
    return Shard(path=path, **{**content, **shapes})
