"""The folder that model files must lie in."""

from __future__ import annotations

from pathlib import Path

from ptychostream.errors import ModelError


def in_folder(path: str | Path, folder: Path | None, remedy: str = "copy the model into {} and name it there") -> Path:
    """The resolved path of a model, where it lies in the folder; None: anywhere. `{}` in `remedy` is the folder.

    Raises
    ------
    ModelError
        It lies outside.
    """
    base = folder.resolve() if folder is not None else Path.cwd()
    found = (base / path).resolve()
    if folder is not None and not found.is_relative_to(base):
        raise ModelError("lies outside the models folder", where=str(path), remedy=remedy.format(base))
    return found
