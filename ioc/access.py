"""Access security: one file for the records and the images."""

from __future__ import annotations

from pathlib import Path

from epicscorelibs.ioc import dbCore
from softioc.imports import install_pv_logging

from ptychostream.errors import ConfigError
from ptychostream.ioc.database import DB_FOLDER
from ptychostream.ioc.settings import AccessSettings


def choose(settings: AccessSettings) -> tuple[Path, str]:
    """The access security file and its macros.

    Raises
    ------
    ConfigError
        A file of the site's is not there: an IOC with an undefined access file refuses everybody or nobody.
    """
    if settings.file is not None:
        path = settings.file.resolve()
        if not path.is_file():
            raise ConfigError("no such file", where=str(path), remedy="correct access.file")
        return path, ""
    if settings.operators or settings.agents:
        operators, agents = settings.operators or ("nobody",), settings.agents or ("nobody",)
        # macLib needs its commas quoted.
        return DB_FOLDER / "restricted.acf", f'OPERATORS="{",".join(operators)}",AGENTS="{",".join(agents)}"'
    return DB_FOLDER / "access.acf", ""


def install(path: Path, macros: str) -> None:
    """Give the file to EPICS, and log the puts that it marks with TRAPWRITE. Before iocInit."""
    if macros and dbCore.asSetSubstitutions(macros.encode()):
        raise ConfigError(f"macros {macros!r}", where=str(path), remedy="correct access.operators and access.agents")
    install_pv_logging(str(path))
