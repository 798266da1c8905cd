"""The put log: who wrote what into which record, and what was there before.

EPICS calls a listener before and after each put that the access security file marks with TRAPWRITE. The peer is the
address that the connection comes from (see `ptychostream.ioc.records.access.install`); the user's name is what the
client says.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from ctypes import CFUNCTYPE, POINTER, Structure, addressof, c_byte, c_char, c_char_p, c_double, c_float, c_int
from ctypes import c_short, c_uint8, c_void_p, cast, create_string_buffer

from epicscorelibs.ioc import dbCore
from softioc.imports import db_get_field

from ptychostream.db.templates import STATES

log = logging.getLogger(__name__)

LONGEST_TEXT = 200
"""Longer texts are cut in the log, and marked as cut."""
_MOST_NUMBERS = 8
_DBR_STRING, _DBR_CHAR = 0, 1  # dbFldTypes.h: what the database gives
_STRING, _CHAR, _ENUM = 0, 4, 3  # db_access.h: what a client sends
_NUMBERS = {1: c_short, 2: c_float, 3: c_short, 4: c_uint8, 5: c_int, 6: c_double}
_STATES = (("ZNAM", "ONAM"), tuple(f"{state}ST" for state in STATES))


class _Message(Structure):
    """struct asTrapWriteMessage of EPICS base's asTrapWrite.h."""

    _fields_ = (
        ("user", c_char_p),
        ("host", c_char_p),
        ("channel", c_void_p),
        ("private", c_void_p),
        ("type", c_int),
        ("count", c_int),
        ("data", c_void_p),
    )


_Listener = CFUNCTYPE(None, POINTER(_Message), c_int)
dbCore.asTrapWriteRegisterListener.argtypes = (_Listener,)
dbCore.asTrapWriteRegisterListener.restype = c_void_p


class PutLog:
    """Writes every put that is marked into the log, one line each. To be kept as long as the IOC lives."""

    def __init__(self) -> None:
        self._before: dict[int, str] = {}  # by the address of the message, between the two calls for one put
        self._listener = _Listener(self._hear)
        dbCore.asTrapWriteRegisterListener(self._listener)

    def _hear(self, message: object, after: int) -> None:
        try:
            put: _Message = message.contents  # type: ignore[attr-defined]
            name = _channel_name(put.channel)
            if after:
                sent = _sent(name, put)
                was = self._before.pop(addressof(put), "?")
                log.info("put %s = %s, was %s, by %s", name, sent, was, who(put.user, put.host))
            else:
                self._before[addressof(put)] = _shown(name, _is_text(name))
        except Exception:
            log.exception("a put was not logged")


def who(user: bytes | None, host: bytes | None) -> str:
    """The writer as the log shows it: user and peer, with every character that is not plain escaped."""
    return f"{quoted((user or b'?').decode(errors='replace'))} at {quoted((host or b'?').decode(errors='replace'))}"


def quoted(text: str) -> str:
    """A text in double quotes, on one line: quotes and what is not printable escaped, cut after `LONGEST_TEXT`."""
    shown = text[:LONGEST_TEXT].replace("\\", "\\\\").replace('"', '\\"')
    plain = "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in shown)
    return f'"{plain}"' + ("…" if len(text) > LONGEST_TEXT else "")


def numbers(values: Sequence[float]) -> str:
    """Numbers of an array, cut after a few."""
    some = ", ".join(f"{value:g}" for value in values[:_MOST_NUMBERS])
    if len(values) == 1:
        return some
    return f"[{some}{f', … {len(values)} in all' if len(values) > _MOST_NUMBERS else ''}]"


def _channel_name(channel: int) -> str:
    """The name of a dbChannel, the first member of its structure."""
    name = cast(channel, POINTER(c_char_p)).contents.value or b"?"
    return name.decode(errors="replace")


def _sent(name: str, put: _Message) -> str:
    """The value that the client sent. QSRV gives listeners none (pvxs 1.5.3): then the value that is there now."""
    if not put.data:
        return _shown(name, _is_text(name))
    if put.type == _STRING:
        first = cast(put.data, POINTER(c_char * 40)).contents.raw.split(b"\0")[0]
        return quoted(first.decode(errors="replace")) + (f" and {put.count - 1} more" if put.count > 1 else "")
    if put.type == _CHAR and put.count != 1:
        raw = cast(put.data, POINTER(c_byte * put.count)).contents
        return quoted(bytes(raw).split(b"\0")[0].decode(errors="replace"))
    kind = _NUMBERS.get(put.type)
    if kind is None:
        return f"a value of type {put.type}"
    values = list(cast(put.data, POINTER(kind * put.count)).contents)
    text = numbers(values)
    state = _state(name, int(values[0])) if put.type == _ENUM and put.count == 1 else ""
    return f"{text} ({state})" if state else text


def _state(name: str, index: int) -> str:
    """The text of a state of a binary or multi-bit record; empty if it has none."""
    record = name.partition(".")[0]
    for states in _STATES:
        if 0 <= index < len(states):
            try:
                return quoted(_field(f"{record}.{states[index]}"))
            except OSError:
                continue
    return ""


def _is_text(name: str) -> bool:
    """Whether the record is an array of characters, which holds a long text."""
    record = name.partition(".")[0]
    try:
        return _field(f"{record}.FTVL") in ("CHAR", "UCHAR")
    except OSError:
        return False


def _shown(name: str, text: bool) -> str:
    """The value that is there, as the database prints it."""
    try:
        return quoted(_field(name, text))
    except OSError:
        return "?"


def _field(name: str, text: bool = False) -> str:
    """A field as a string; of an array of characters all of them. Raises OSError."""
    size = 1024 if text else 40
    buffer = create_string_buffer(size + 1)
    kind, length = (_DBR_CHAR, size) if text else (_DBR_STRING, 1)
    try:
        db_get_field(name, kind, addressof(buffer), length)
    except (RuntimeError, AssertionError, ValueError) as error:
        raise OSError(str(error)) from error
    return buffer.value.decode(errors="replace")
