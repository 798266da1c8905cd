"""Values into records: plain soft records, written only when they changed.

`db_put_field_process` costs under a microsecond and no callback, so that writing everything a few times a second
is cheap; `ai.set` would cost sixty times that and can overflow EPICS's callback queue.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Iterable, Mapping
from ctypes import (
    Structure, addressof, byref, c_double, c_int16, c_int32, c_int64, c_uint, c_void_p, create_string_buffer, sizeof,
)  # fmt: skip
from typing import Any

import numpy as np
from epicscorelibs.ioc import dbCore
from numpy.typing import NDArray
from softioc import fields
from softioc.imports import db_get_field, db_put_field_process

from ptychostream.ioc.records.database import RecordInfo
from ptychostream.statements.record_text import STRING_BYTES, clip

Value = float | int | str

NUMBERS: dict[str, tuple[type[Any], int]] = {
    "ai": (c_double, fields.DBF_DOUBLE),
    "ao": (c_double, fields.DBF_DOUBLE),
    "calc": (c_double, fields.DBF_DOUBLE),
    "longin": (c_int32, fields.DBF_LONG),
    "longout": (c_int32, fields.DBF_LONG),
    "int64in": (c_int64, fields.DBF_INT64),
    "int64out": (c_int64, fields.DBF_INT64),
    "bi": (c_int16, fields.DBF_SHORT),
    "bo": (c_int16, fields.DBF_SHORT),
    "mbbi": (c_int16, fields.DBF_SHORT),
    "mbbo": (c_int16, fields.DBF_SHORT),
}
"""C type and EPICS type of the records that hold a number."""
_VALUE_AND_LOG = 3
"""EPICS's DBE_VALUE and DBE_LOG."""
_STRINGS = ("stringin", "stringout")


class Records:
    """The records of this process, by name without prefix.

    Parameters
    ----------
    prefix
        What every name begins with.
    infos
        The records of the database.
    """

    def __init__(self, prefix: str, infos: Iterable[RecordInfo]) -> None:
        self._prefix = prefix
        self._infos = {info.name.removeprefix(prefix): info for info in infos}
        self._last: dict[str, Value] = {}
        self._lock = threading.Lock()

    def put(self, name: str, value: Value) -> None:
        """Write one record and process it, if the value differs from the last one written."""
        with self._lock:
            # NaN differs from itself: `is` keeps it from being written again and again.
            if name in self._last and (self._last[name] == value or self._last[name] is value):
                return
            self._write(self._infos[name], value)
            self._last[name] = value

    def overwrite(self, name: str, value: Value) -> None:
        """Write one record and process it, whatever was written last: clients write it too."""
        with self._lock:
            self._write(self._infos[name], value)

    def put_all(self, values: Mapping[str, Value]) -> None:
        """`put` for each."""
        for name, value in values.items():
            self.put(name, value)

    def put_array(self, name: str, values: NDArray[np.float64]) -> None:
        """Write an array and process its record. At least one value is written: EPICS takes no empty array."""
        array = np.ascontiguousarray(values if values.size else (math.nan,), np.float64)
        db_put_field_process(self._infos[name].name, fields.DBF_DOUBLE, array.ctypes.data, array.size, True)

    def restore(self, name: str, refused: Value, value: Value) -> None:
        """Put a record back to `value` without processing it, unless it holds another value than `refused` by now."""
        now = self.get(name)
        if now == refused or (now != now and refused != refused):  # NaN differs from itself
            self._write(self._infos[name], value, process=False)

    def begin_command(self, name: str) -> None:
        """Show 1 while the command works. EPICS tells monitors of a put only when its processing is over."""
        self._write(self._infos[name], 1, process=False)
        post_value(self._infos[name].name)

    def reset_command(self, name: str) -> None:
        """Put a command back to 0 without processing it; clients see it."""
        self._write(self._infos[name], 0, process=False)
        post_value(self._infos[name].name)

    def process(self, name: str) -> None:
        """Process a record as it is."""
        buffer = c_int16(1)
        db_put_field_process(f"{self._infos[name].name}.PROC", fields.DBF_SHORT, addressof(buffer), 1, True)

    def get(self, name: str) -> Value:
        """The record's value; a waveform of characters as text."""
        info = self._infos[name]
        if info.type in NUMBERS:
            kind, code = NUMBERS[info.type]
            number = kind()
            db_get_field(info.name, code, addressof(number), 1)
            value: float | int = number.value
            return value
        if info.type in _STRINGS:
            text = create_string_buffer(STRING_BYTES + 1)
            db_get_field(info.name, fields.DBF_STRING, addressof(text), 1)
        else:
            text = create_string_buffer(int(info.fields["NELM"]) + 1)
            db_get_field(info.name, fields.DBF_UCHAR, addressof(text), len(text) - 1)
        return text.value.decode(errors="replace")

    def names(self) -> Iterable[str]:
        """Names without prefix."""
        return self._infos.keys()

    def info(self, name: str) -> RecordInfo:
        """How the template describes a record."""
        return self._infos[name]

    def _write(self, info: RecordInfo, value: Value, process: bool = True) -> None:
        if info.type in NUMBERS:
            kind, code = NUMBERS[info.type]
            if kind is not c_double and isinstance(value, float):
                value = 0 if math.isnan(value) else round(value)
            number = kind(nearest(kind, value))
            db_put_field_process(info.name, code, addressof(number), 1, process)
            return
        data = clip(str(value), room(info))
        if info.type in _STRINGS:
            text = create_string_buffer(data, STRING_BYTES + 1)
            db_put_field_process(info.name, fields.DBF_STRING, addressof(text), 1, process)
            return
        text = create_string_buffer(data, len(data) + 1)
        db_put_field_process(info.name, fields.DBF_UCHAR, addressof(text), len(data) + 1, process)


def nearest(kind: type[Any], value: Value) -> Value:
    """The value, or the nearest that the C type holds: ctypes wraps a whole number that is too large, without error."""
    if kind is c_double or not isinstance(value, int):
        return value
    largest = 2 ** (8 * sizeof(kind) - 1) - 1
    return min(max(value, -largest - 1), largest)


class _Address(Structure):
    """The beginning of EPICS's DBADDR; the rest is room for its other members."""

    _fields_ = (("record", c_void_p), ("field", c_void_p), ("rest", c_void_p * 16))


def post_value(name: str) -> None:
    """Send a record's value to its monitors as it is now, with a new time stamp."""
    address = _Address()
    if dbCore.dbNameToAddr(name.encode(), byref(address)):
        return
    dbCore.dbScanLock(c_void_p(address.record))
    try:
        dbCore.recGblGetTimeStamp(c_void_p(address.record))
        dbCore.db_post_events(c_void_p(address.record), c_void_p(address.field), c_uint(_VALUE_AND_LOG))
    finally:
        dbCore.dbScanUnlock(c_void_p(address.record))


def room(info: RecordInfo) -> int:
    """Bytes of text that a record holds."""
    return STRING_BYTES if info.type in _STRINGS else int(info.fields["NELM"]) - 1
