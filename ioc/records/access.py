"""Access security: one file for the records and the images."""

from __future__ import annotations

from ctypes import POINTER, Structure, byref, c_char_p, c_int, c_long, c_void_p, create_string_buffer
from pathlib import Path

from epicscorelibs.ioc import dbCore
from softioc.imports import install_pv_logging

from ptychostream.errors import ConfigError
from ptychostream.ioc.records.database import DB_FOLDER
from ptychostream.ioc.config.settings import AccessSettings


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


class _Client(Structure):
    """struct asgClient of EPICS base's asLib.h; its macro asCheckPut reads `access`."""

    _fields_ = (
        ("node", c_void_p * 2),
        ("member", c_void_p),
        ("user", c_char_p),
        ("host", c_void_p),
        ("private", c_void_p),
        ("callback", c_void_p),
        ("level", c_int),
        ("access", c_int),
        ("trap_mask", c_int),
    )


_WRITE = 2
for _name, _arguments in (
    ("asAddMember", (POINTER(c_void_p), c_char_p)),
    ("asAddClient", (POINTER(POINTER(_Client)), c_void_p, c_int, c_char_p, c_char_p)),
    ("asRemoveClient", (POINTER(POINTER(_Client)),)),
    ("asRemoveMember", (POINTER(c_void_p),)),
):
    _function = getattr(dbCore, _name)
    _function.argtypes, _function.restype = _arguments, c_long


def may_write(group: str, user: str, host: str) -> bool:
    """Whether `user` at `host` may write the value of a record of `group`, by the file that EPICS has now.

    For what is no record: it is asked of the engine that guards the records, with all that the file's rules can say.
    """
    name, user_text, host_text = group.encode(), user.encode(), create_string_buffer(host.encode())
    member, client = c_void_p(), POINTER(_Client)()
    if dbCore.asAddMember(byref(member), name):
        return not c_int.in_dll(dbCore, "asActive").value
    try:
        if dbCore.asAddClient(byref(client), member, 0, user_text, host_text):
            return not c_int.in_dll(dbCore, "asActive").value
        try:
            return bool(client.contents.access >= _WRITE)
        finally:
            dbCore.asRemoveClient(byref(client))
    finally:
        dbCore.asRemoveMember(byref(member))
