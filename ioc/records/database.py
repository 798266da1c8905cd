"""The record database before iocInit: load the templates, read and change records through dbStaticLib.

Prefixes are checked here, because an undefined or impossible record name crashes EPICS base.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from ctypes import c_char_p, c_int, c_long, c_void_p
from dataclasses import dataclass
from pathlib import Path

from epicscorelibs.ioc import dbCore, pdbbase
from softioc import softioc

from ptychostream.db import templates
from ptychostream.errors import ConfigError

GPU_GROUP = "gpu"
"""Where the machine has one."""
CLUSTER_GROUP = "cluster"
"""Where consumers stitch."""
LONGEST_PREFIX = 40
"""Record names end at 60 characters; the longest name of ours, with a field, takes the rest."""

_PREFIX = re.compile(r"[A-Za-z0-9_:\-+;\[\]<>]+")

_ENTRY = (c_void_p,)
for _name, _arguments, _result in (
    ("dbAllocEntry", (c_void_p,), c_void_p),
    ("dbFreeEntry", _ENTRY, None),
    ("dbFindRecord", (c_void_p, c_char_p), c_long),
    ("dbFirstRecordType", _ENTRY, c_long),
    ("dbNextRecordType", _ENTRY, c_long),
    ("dbGetRecordTypeName", _ENTRY, c_char_p),
    ("dbFirstRecord", _ENTRY, c_long),
    ("dbNextRecord", _ENTRY, c_long),
    ("dbGetRecordName", _ENTRY, c_char_p),
    ("dbIsAlias", _ENTRY, c_int),
    ("dbFindField", (c_void_p, c_char_p), c_long),
    ("dbGetString", _ENTRY, c_char_p),
    ("dbPutString", (c_void_p, c_char_p), c_long),
    ("dbFirstField", (c_void_p, c_int), c_long),
    ("dbNextField", (c_void_p, c_int), c_long),
    ("dbGetFieldName", _ENTRY, c_char_p),
    ("dbFirstInfo", _ENTRY, c_long),
    ("dbNextInfo", _ENTRY, c_long),
    ("dbGetInfoName", _ENTRY, c_char_p),
    ("dbGetInfoString", _ENTRY, c_char_p),
):
    _function = getattr(dbCore, _name)
    _function.argtypes, _function.restype = _arguments, _result


@dataclass(frozen=True)
class RecordInfo:
    """One record as its template describes it: fields that differ from their default, info tags, aliases left out."""

    name: str
    type: str
    fields: Mapping[str, str]
    info: Mapping[str, str]


def check_prefix(prefix: str, key: str = "prefix") -> None:
    """Raise ConfigError unless `prefix` can begin a record name."""
    if not _PREFIX.fullmatch(prefix) or len(prefix) > LONGEST_PREFIX:
        raise ConfigError(
            f"prefix {prefix!r}",
            where=key,
            remedy=f"use 1 to {LONGEST_PREFIX} letters, digits, and _ : - + ; [ ] < >, as in 'ptycho:NN1:'",
        )


def load_group(group: str, prefix: str, macros: Mapping[str, str | int] | None = None) -> set[str]:
    """Load the templates of a group with `$(P)$(R)` = `prefix`. Returns the names of its records."""
    return {name for path in templates.paths(group) for name in load_template(path, prefix, macros)}


def load_template(path: Path, prefix: str, macros: Mapping[str, str | int] | None = None) -> list[str]:
    """Load a template with `$(P)$(R)` = `prefix`. Returns the names of its records.

    Raises
    ------
    ConfigError
        It has a macro that is not given and has no default, or a record that exists: EPICS base would crash on the
        one, and mix both records' fields on the other.
    """
    check_prefix(prefix)
    given: dict[str, str | int] = {"P": prefix, "R": "", **(macros or {})}
    text = path.read_text(encoding="utf-8")
    for macro, default in re.findall(r"\$\((\w+)(=[^)]*)?\)", text):
        if macro not in given and not default:
            remedy = f"use {', '.join(f'$({name})' for name in given)}, or give a default: $({macro}=…)"
            raise ConfigError(f"unknown macro $({macro})", where=str(path), remedy=remedy)
    loaded = []
    for name in re.findall(r'^record\(\w+, *"([^"]+)"', text, re.MULTILINE):
        full = re.sub(r"\$\((\w+)(?:=[^)]*)?\)", lambda found: str(given.get(found[1], found[0])), name)
        if get_static(full, "NAME") is not None:
            raise ConfigError(f"record {full} exists", where=str(path), remedy="give the record another name")
        loaded.append(full)
    softioc.dbLoadDatabase(path.name, str(path.parent), ",".join(f"{name}={value}" for name, value in given.items()))
    return loaded


class _Entry:
    """A dbStaticLib cursor, freed at the end of its block."""

    def __enter__(self) -> c_void_p:
        self.pointer = c_void_p(dbCore.dbAllocEntry(pdbbase))
        return self.pointer

    def __exit__(self, *_: object) -> None:
        dbCore.dbFreeEntry(self.pointer)


def records() -> Iterator[RecordInfo]:
    """Every record that is loaded, in no particular order of types, each type in the order of loading."""
    with _Entry() as entry:
        kind_status = dbCore.dbFirstRecordType(entry)
        while kind_status == 0:
            kind = dbCore.dbGetRecordTypeName(entry).decode()
            status = dbCore.dbFirstRecord(entry)
            while status == 0:
                if not dbCore.dbIsAlias(entry):
                    name = dbCore.dbGetRecordName(entry).decode()
                    yield RecordInfo(name, kind, _fields(name), _info(name))
                status = dbCore.dbNextRecord(entry)
            kind_status = dbCore.dbNextRecordType(entry)


def _fields(name: str) -> dict[str, str]:
    found = {}
    with _Entry() as entry:
        dbCore.dbFindRecord(entry, name.encode())
        status = dbCore.dbFirstField(entry, 1)
        while status == 0:
            text = dbCore.dbGetString(entry)
            if text:
                found[dbCore.dbGetFieldName(entry).decode()] = text.decode(errors="replace")
            status = dbCore.dbNextField(entry, 1)
    return found


def _info(name: str) -> dict[str, str]:
    found = {}
    with _Entry() as entry:
        dbCore.dbFindRecord(entry, name.encode())
        status = dbCore.dbFirstInfo(entry)
        while status == 0:
            found[dbCore.dbGetInfoName(entry).decode()] = dbCore.dbGetInfoString(entry).decode()
            status = dbCore.dbNextInfo(entry)
    return found


def keep_memory_pageable() -> None:
    """Have iocInit not lock the process into memory, which it does for a user who may schedule in real time.

    Every thread's whole stack and every canvas's reserve would be resident from then on.
    """
    c_int.in_dll(dbCore, "dbThreadRealtimeLock").value = 0


def put_static(name: str, field: str, text: str) -> bool:
    """Set a field before iocInit; False where the record or field does not exist or refuses the text."""
    with _Entry() as entry:
        return (
            dbCore.dbFindRecord(entry, name.encode()) == 0
            and dbCore.dbFindField(entry, field.encode()) == 0
            and dbCore.dbPutString(entry, text.encode()) == 0
        )


def get_static(name: str, field: str) -> str | None:
    """A field before iocInit, as text; None where the record or field does not exist."""
    with _Entry() as entry:
        if dbCore.dbFindRecord(entry, name.encode()) or dbCore.dbFindField(entry, field.encode()):
            return None
        text = dbCore.dbGetString(entry)
        return text.decode(errors="replace") if text is not None else ""
