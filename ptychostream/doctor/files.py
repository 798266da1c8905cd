"""The files of an IOC: the folder of canvases, and the autosave file."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

from ptychostream.doctor.finding import Finding, fail, ok, warn
from ptychostream.errors import ConfigError
from ptychostream.ioc.config.settings import IocSettings
from ptychostream.ioc.config.start import begin
from ptychostream.ioc.records.autosave import parse_values

_LEAST_BYTES = 1 << 30


def check_disk(settings: IocSettings, free: Callable[[Path], int] | None = None) -> Finding:
    """Whether canvases can be saved. `free` gives the free bytes of a folder."""
    folder = settings.save.directory
    if folder is None:
        if settings.save.automatic:
            return fail("disk", "save.automatic needs a folder", "set save.directory")
        return ok("disk", "no canvases are saved")
    problem = _unwritable(folder)
    if problem:
        return fail("disk", f"{folder}: {problem}", "make that folder, and let the IOC's user write there")
    left = (free or _free)(folder)
    if left < _LEAST_BYTES:
        return warn(
            "disk", f"{folder}: {left / 1e6:.0f} MB are free", "make room: a canvas takes up to some hundred MB"
        )
    return ok("disk", f"{folder}: {left / 1e9:.0f} GB are free")


def check_autosave(settings: IocSettings) -> Finding:
    """Whether setpoints are kept, and whether what was kept fits."""
    path = settings.autosave
    if path is None:
        return warn("autosave", "setpoints are not kept over a restart", "set autosave to a file")
    problem = _unwritable(path.resolve().parent)
    if problem or path.is_dir():
        what = problem or "is a folder"
        return fail("autosave", f"{path}: {what}", "name a file in a folder that the IOC's user may write")
    if not path.exists():
        return ok("autosave", f"{path} is not there yet")
    try:
        saved = parse_values(path.read_text(encoding="utf-8"), str(path))
    except (OSError, UnicodeDecodeError, ConfigError) as error:
        what = error.what if isinstance(error, ConfigError) else str(error)
        return fail("autosave", f"{path}: {what}", "remove it, or restore its .bak")
    kept = {name.removeprefix(settings.prefix): text for name, text in saved.items()}
    passed_over = begin(settings, kept, ()).passed_over
    if passed_over:
        return warn("autosave", f"{path}: {passed_over[0]}", "correct that line; the IOC passes it over")
    return ok("autosave", f"{path}: {len(kept)} values")


def _unwritable(folder: Path) -> str:
    if not folder.is_dir():
        return "no such folder"
    return "" if os.access(folder, os.W_OK | os.X_OK) else "may not be written by this user"


def _free(folder: Path) -> int:
    return shutil.disk_usage(folder).free
