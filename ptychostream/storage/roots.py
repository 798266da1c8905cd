"""Which files a client may name: those within certain folders, by the path that is left when links are followed."""

from __future__ import annotations

import stat
from collections.abc import Iterable, Sequence
from pathlib import Path

from ptychostream.errors import ConfigError


def inside(text: str, roots: Sequence[Path], where: str, key: str) -> Path:
    """The file or folder that `text` names, resolved.

    Parameters
    ----------
    text
        A path; a relative one counts from the working directory.
    roots
        The folders that it must lie in.
    where, key
        Who named it, and the setting that holds the folders, for the message.

    Raises
    ------
    ConfigError
        It cannot be resolved, lies in none of the folders once its links are followed, or is neither a regular file
        nor a folder: opening a pipe or a device can wait for ever.
    """
    try:
        path = Path(text).resolve()
        homes = [root.resolve() for root in roots]
        kind = path.stat().st_mode if path.exists() else None
    except (OSError, RuntimeError, ValueError) as error:
        what = f"{text!r} cannot be looked up: {getattr(error, 'strerror', None) or error}"
        raise ConfigError(what, where=where, remedy="give the path of a file that exists") from error
    if not any(path.is_relative_to(home) for home in homes):
        named = ", ".join(map(str, homes)) or "none"
        what = f"{text!r} lies outside the folders that clients may name files in ({named})"
        raise ConfigError(what, where=where, remedy=f"give a file within them, or add its folder to {key}")
    if kind is not None and not (stat.S_ISREG(kind) or stat.S_ISDIR(kind)):
        what = f"{text!r} is neither a file nor a folder"
        raise ConfigError(what, where=where, remedy="give a regular file")
    return path


def folders_of(paths: Iterable[Path | None]) -> tuple[Path, ...]:
    """The working directory, unless it is the root of the file system, and the folders of `paths`, each once."""
    named = [path if path.is_dir() else path.parent for path in paths if path is not None]
    here = Path.cwd()
    found = [here] if here != Path(here.anchor) else []
    return tuple(dict.fromkeys([*found, *(path.resolve() for path in named)]))
