"""Links of an HDF5 file that lead to files which are not there."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import h5py

from ptychostream.errors import ScanFileError

_DEEPEST = 8
_MOST = 10_000


def at(parent: h5py.Group, path: str) -> Any:
    """What stands at `path`, or None: also behind a link that leads nowhere, or in a circle."""
    try:
        return parent.get(path)
    except (OSError, RuntimeError, KeyError, ValueError):
        return None


def broken(group: h5py.Group, name: str) -> str | None:
    """Where the link `name` of `group` leads, if there is nothing at its end. None for a sound link."""
    if at(group, name) is not None:
        return None
    link = group.get(name, getlink=True)
    if isinstance(link, h5py.ExternalLink):
        return f"{link.filename}:{link.path}"
    return str(link.path) if isinstance(link, h5py.SoftLink) else "nothing"


def missing_link(group: h5py.Group, name: str, target: str, where: str) -> ScanFileError:
    """The error for a link that leads nowhere. A missing file is told apart from a missing part of a file."""
    path = f"{group.name.rstrip('/')}/{name}"
    link = group.get(name, getlink=True)
    if isinstance(link, h5py.ExternalLink):
        beside = Path(os.fsdecode(group.file.filename)).parent / link.filename
        if not beside.exists() and not Path(link.filename).exists():
            return ScanFileError(
                f"{path} leads to the file {link.filename}, which is not there",
                where=where,
                remedy="copy it beside this file under the name that the link has",
            )
        return ScanFileError(
            f"{path} leads to {link.path} in {link.filename}, which cannot be read there",
            where=where,
            remedy="the file is another one, is damaged or is still being written; copy it again",
        )
    if isinstance(link, h5py.SoftLink) and _is_circle(group, name):
        what = f"{path} leads to {target}, and from there back to itself"
        return ScanFileError(what, where=where, remedy="write the file anew without this link")
    return ScanFileError(
        f"{path} leads to {target}, which is not in the file", where=where, remedy="copy the file again"
    )


def _is_circle(group: h5py.Group, name: str) -> bool:
    """Whether soft links lead round in a circle: HDF5 gives up after some of them, and says so."""
    try:
        group.id.links.get_info(name.encode())
        h5py.h5o.open(group.id, name.encode())
    except (OSError, RuntimeError, KeyError) as error:
        return "too many" in str(error)
    return False


def refuse_broken(file: h5py.File, paths: Iterable[str], where: str) -> None:
    """Raise ScanFileError if a broken link lies on the way to one of `paths`. A path that is not there is none."""
    for path in paths:
        parent: Any = file
        for name in filter(None, path.split("/")):
            if not isinstance(parent, h5py.Group) or parent.get(name, getlink=True) is None:
                break
            if target := broken(parent, name):
                raise missing_link(parent, name, target, where)
            parent = parent.get(name)


def broken_links(file: h5py.File) -> Iterator[tuple[h5py.Group, str, str]]:
    """(group, name, target) of every broken link of the file's own groups, down to some depth."""
    waiting: list[tuple[Any, int]] = [(file, 0)]
    seen = 0
    while waiting:
        group, depth = waiting.pop()
        for name in group:
            seen += 1
            if seen > _MOST:
                return
            link = group.get(name, getlink=True)
            if isinstance(link, (h5py.ExternalLink, h5py.SoftLink)):
                if target := broken(group, name):
                    yield group, str(name), target
            elif depth < _DEEPEST and isinstance(child := group.get(name), h5py.Group):
                waiting.append((child, depth + 1))
