"""Access security: one file for the records and the images, and who may write by it."""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from ctypes import POINTER, Structure, byref, c_char_p, c_int, c_long, c_void_p, create_string_buffer
from enum import Enum
from pathlib import Path
from typing import NamedTuple

from epicscorelibs.ioc import dbCore

from ptychostream.errors import ConfigError
from ptychostream.ioc.config.settings import AccessSettings
from ptychostream.db.templates import FOLDER

log = logging.getLogger(__name__)

GROUPS = ("OPERATOR", "MODEL", "AGENT", "PROGRESS", "READONLY")
"""The groups that a site's own file must define: a record of another group would get the rules of DEFAULT."""


class Mode(Enum):
    """Who may write; the value is that of the record `Access_RBV`."""

    OPEN = 0
    OPERATORS = 1
    LOCKED = 2
    SITE = 3


class Access(NamedTuple):
    """The access security file, its macros, and what it means."""

    mode: Mode
    path: Path
    macros: str = ""


def choose(settings: AccessSettings) -> Access:
    """The access security file and its macros.

    Raises
    ------
    ConfigError
        A file of the site's is not there, because an IOC with an undefined access file refuses everybody or nobody; or
        it lacks one of `GROUPS`.
    """
    if settings.file is not None:
        return Access(Mode.SITE, _checked(settings.file.resolve()))
    operators, agents = settings.operators, settings.agents
    if settings.mode == "locked" or operators or agents:
        mode = Mode.OPERATORS if operators or agents else Mode.LOCKED
        return Access(mode, FOLDER / "access.acf", f"OPERATORS={_users(operators)},AGENTS={_users(agents)}")
    return Access(Mode.OPEN, FOLDER / "open.acf")


def install(access: Access) -> None:
    """Give the file to EPICS, and say if it lets everybody write. Before iocInit.

    The host groups (HAG) of a site's file hold for the address that a client's connection comes from, over Channel
    Access as over PV Access; the name that a client gives for its host does not count.
    """
    c_int.in_dll(dbCore, "asCheckClientIP").value = 1  # before the file is read, because it resolves the hosts' names
    if access.macros and dbCore.asSetSubstitutions(access.macros.encode()):
        raise ConfigError(
            f"macros {access.macros!r}", where=str(access.path), remedy="correct access.operators and access.agents"
        )
    if dbCore.asSetFilename(str(access.path).encode()):
        raise ConfigError("EPICS does not take it", where=str(access.path), remedy="correct access.file")
    if access.mode is Mode.OPEN:
        log.warning(
            "everybody on the network may write every setpoint and load models; name users in access.operators and "
            "access.agents, or start with --access locked"
        )


def _users(names: Sequence[str]) -> str:
    """The macro of a user group; empty for a group without users. macLib needs its commas quoted."""
    return f'"{{{",".join(names)}}}"' if names else '""'


def _checked(path: Path) -> Path:
    try:
        text = re.sub("#.*", "", path.read_text(errors="replace"))
    except OSError as error:
        raise ConfigError(f"{error.strerror}", where=str(path), remedy="correct access.file") from error
    defined = set(re.findall(r"\bASG\s*\(\s*\"?([^\s\")]+)", text))
    if missing := [group for group in GROUPS if group not in defined]:
        raise ConfigError(
            f"it does not define the access security group {' and '.join(missing)}",
            where=str(path),
            remedy="define in it the groups of db/access.acf: a record of no group gets the rules of DEFAULT",
        )
    return path


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
