"""PVA values from Python's, byte for byte as a server serialises them: for updates that no program here can send."""

from __future__ import annotations

from typing import Any

import numpy as np

from ptychostream.rawpva.fields import (
    ANY,
    ARRAY,
    BOUNDED_STRING,
    FIXED_ARRAY,
    STRING,
    STRUCTURE,
    STRUCTURES,
    UNION,
    Field,
    default_value,
)
from ptychostream.rawpva.wire import pack_size, pack_text

CODES = {
    "bool": 0x00, "int8": 0x20, "int16": 0x21, "int32": 0x22, "int64": 0x23, "uint8": 0x24, "uint16": 0x25,
    "uint32": 0x26, "uint64": 0x27, "float32": 0x42, "float64": 0x43, "str": STRING,
}  # fmt: skip
_DTYPES = {code: np.dtype(name).newbyteorder("<") for name, code in CODES.items() if name != "str"}
_SHAPE = 0x18


def scalar(name: str) -> Field:
    return Field(CODES[name])


def array(name: str) -> Field:
    return Field(CODES[name] | ARRAY)


def structure(id: str = "", /, **members: Field) -> Field:
    return Field(STRUCTURE, id, tuple(members.items()))


def union(**members: Field) -> Field:
    return Field(UNION, "", tuple(members.items()))


def structures(element: Field) -> Field:
    return Field(STRUCTURES, element=element)


ANYTHING = Field(ANY)


def encode(field: Field, value: Any = None) -> bytes:
    """The value serialised.

    Parameters
    ----------
    value
        A number or text; numbers in a sequence; a dict of a structure's members, those not set left out; of a union
        (name, value), of an any (Field, value); dicts or None for an array of structures. None is what was never set.
    """
    if value is None:
        return default_value(field)
    if field.code == STRUCTURE:
        unknown = set(value) - {name for name, _ in field.members}
        assert not unknown, unknown
        return b"".join(encode(member, value.get(name)) for name, member in field.members)
    if field.code == UNION:
        chosen = [name for name, _ in field.members].index(value[0])
        return pack_size(chosen) + encode(field.members[chosen][1], value[1])
    if field.code == ANY:
        return value[0].pack() + encode(*value)
    if field.element is not None:
        parts = [b"\0" if one is None else b"\1" + encode(field.element, one) for one in value]
        return pack_size(len(parts)) + b"".join(parts)
    if field.code == BOUNDED_STRING:
        return pack_text(value)
    return _plain(field, value)


def _plain(field: Field, value: Any) -> bytes:
    kind, shape = field.code & ~_SHAPE, field.code & _SHAPE
    values = value if shape else [value]
    count = b"" if shape in (0, FIXED_ARRAY) else pack_size(len(values))
    if kind == STRING:
        return count + b"".join(map(pack_text, values))
    return count + np.asarray(values).astype(_DTYPES[kind], casting="unsafe").tobytes()
