"""PVA types and values in their serialised form. Nothing is converted, so nothing is lost.

`Field` is a type. `copy_value` reads a value and writes its canonical bytes (little-endian, no cached types). `Layout`
numbers the fields of a structure in the same way as the change bits of a monitor.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

from ptychostream.rawpva.wire import Reader, WireError, pack_size, pack_text

STRUCTURE, UNION, ANY, BOUNDED_STRING = 0x80, 0x81, 0x82, 0x83
STRUCTURES, UNIONS, ANYS = 0x88, 0x89, 0x8A  # arrays of structures, unions and anys
STRING = 0x60
NUMBERS = {0x00: 1, 0x20: 1, 0x21: 2, 0x22: 4, 0x23: 8, 0x24: 1, 0x25: 2, 0x26: 4, 0x27: 8, 0x42: 4, 0x43: 8}
"""Size in bytes of each numeric type, by type code."""

NULL = 0xFF
ARRAY, BOUNDED_ARRAY, FIXED_ARRAY = 0x08, 0x10, 0x18
_SHAPE = 0x18
_CACHED, _CACHE = 0xFE, 0xFD
_MAX_DEPTH = 32
_MAX_FIELDS = 1 << 16
_MAX_BOUND = 1 << 24


@dataclass(frozen=True)
class Field:
    """A PVA type.

    Attributes
    ----------
    code
        Type code of the specification.
    id
        Id of a structure or union.
    members
        Members of a structure or union, in order.
    element
        Type of the elements of an array of structures or unions.
    bound
        Length of a bounded string, bounded array or fixed array.
    """

    code: int
    id: str = ""
    members: tuple[tuple[str, Field], ...] = ()
    element: Field | None = None
    bound: int = 0

    def pack(self) -> bytes:
        """The complete description of the type on the wire."""
        head = bytes((self.code,))
        if self.code in (STRUCTURE, UNION):
            members = b"".join(pack_text(name) + field.pack() for name, field in self.members)
            return head + pack_text(self.id) + pack_size(len(self.members)) + members
        if self.element is not None:
            return head + self.element.pack()
        return head + pack_size(self.bound) if _is_bounded(self.code) else head

    @cached_property
    def fields(self) -> int:
        """The number of fields in it, including itself."""
        return 1 + sum(member.fields for _, member in self.members) + (self.element.fields if self.element else 0)


def _is_bounded(code: int) -> bool:
    return code == BOUNDED_STRING or (code < STRUCTURE and code & _SHAPE in (BOUNDED_ARRAY, FIXED_ARRAY))


def read_field(reader: Reader, cache: dict[int, Field], depth: int = 0) -> Field | None:
    """Read the description of a type. None for null.

    Parameters
    ----------
    cache
        The connection's descriptions to which the sender has given numbers.

    Raises
    ------
    WireError
        The bytes are not a type.
    """
    if depth > _MAX_DEPTH:
        raise WireError(f"types nested deeper than {_MAX_DEPTH}")
    code = reader.byte()
    if code == NULL:
        return None
    if code == _CACHED:
        number = reader.number("H")
        if number not in cache:
            raise WireError(f"type {number} was never described")
        return cache[number]
    if code == _CACHE:
        number = reader.number("H")
        cache[number] = numbered = _some(read_field(reader, cache, depth + 1))
        return numbered
    if code in (STRUCTURE, UNION):
        name = reader.text()
        members = tuple(
            (reader.text(), _some(read_field(reader, cache, depth + 1))) for _ in range(max(0, reader.size()))
        )
        field = Field(code, name, members)
        if field.fields > _MAX_FIELDS:  # types that refer to each other can grow without bound
            raise WireError(f"a type of more than {_MAX_FIELDS} fields")
        return field
    if code in (STRUCTURES, UNIONS):
        element = _some(read_field(reader, cache, depth + 1))
        if element.code != code & ~ARRAY:
            raise WireError(f"an array of type code {element.code:#04x}")
        return Field(code, element=element)
    if code in (ANY, ANYS):
        return Field(code)
    if code == BOUNDED_STRING or (code < STRUCTURE and (code & ~_SHAPE in NUMBERS or code & ~_SHAPE == STRING)):
        bound = reader.size() if _is_bounded(code) else 0
        if not 0 <= bound <= _MAX_BOUND:
            raise WireError(f"a bound of {bound}")
        return Field(code, bound=bound)
    raise WireError(f"no type has the code {code:#04x}")


def _some(field: Field | None) -> Field:
    if field is None:
        raise WireError("a type that is null within another")
    return field


def copy_value(reader: Reader, field: Field, cache: dict[int, Field], out: list[bytes], depth: int = 0) -> None:
    """Append the canonical bytes of the next value to `out`. Raises WireError."""
    if depth > _MAX_DEPTH:
        raise WireError(f"values nested deeper than {_MAX_DEPTH}")
    code = field.code
    if code < STRUCTURE:
        _copy_plain(reader, field, out)
    elif code == STRUCTURE:
        for _, member in field.members:
            copy_value(reader, member, cache, out, depth + 1)
    elif code == UNION:
        chosen = reader.size()
        out.append(pack_size(chosen))
        if chosen >= len(field.members):
            raise WireError(f"member {chosen} of a union that has {len(field.members)}")
        if chosen >= 0:
            copy_value(reader, field.members[chosen][1], cache, out, depth + 1)
    elif code == ANY:
        held = read_field(reader, cache)
        out.append(bytes((NULL,)) if held is None else held.pack())
        if held is not None:
            copy_value(reader, held, cache, out, depth + 1)
    elif code == BOUNDED_STRING:
        _copy_text(reader, out)
    else:
        element = field.element or Field(ANY)
        count = _copy_count(reader, out)
        for _ in range(count):
            there = reader.byte()
            out.append(bytes((there,)))
            if there:
                copy_value(reader, element, cache, out, depth + 1)


def _copy_plain(reader: Reader, field: Field, out: list[bytes]) -> None:
    """Copy numbers and strings, scalars or arrays."""
    kind, shape = field.code & ~_SHAPE, field.code & _SHAPE
    count = 1 if shape == 0 else field.bound if shape == FIXED_ARRAY else _copy_count(reader, out)
    if kind == STRING:
        for _ in range(count):
            _copy_text(reader, out)
        return
    width = NUMBERS[kind]
    data = bytes(reader.take(count * width))
    if reader.big_endian and width > 1:
        data = b"".join(data[at : at + width][::-1] for at in range(0, len(data), width))
    out.append(data)


def _copy_count(reader: Reader, out: list[bytes]) -> int:
    count = max(0, reader.size())
    if count > reader.left:  # every element has at least one byte
        raise WireError(f"{count} elements in {reader.left} bytes")
    out.append(pack_size(count))
    return count


def _copy_text(reader: Reader, out: list[bytes]) -> None:
    data = bytes(reader.take(max(0, reader.size())))
    out.append(pack_size(len(data)))
    out.append(data)


def default_value(field: Field) -> bytes:
    """The canonical bytes of a value that is not set."""
    code = field.code
    if code == STRUCTURE:
        return b"".join(default_value(member) for _, member in field.members)
    if code in (UNION, ANY):
        return bytes((NULL,))
    if code >= STRUCTURE or code & _SHAPE in (ARRAY, BOUNDED_ARRAY) or code == STRING:
        return b"\0"
    count = field.bound if code & _SHAPE == FIXED_ARRAY else 1
    kind = code & ~_SHAPE
    return bytes(count * (1 if kind == STRING else NUMBERS[kind]))


class Layout:
    """The fields of a structure, numbered like the change bits of a monitor.

    A leaf is a field that is not a structure. The values of all leaves in order are the value of the structure.

    Attributes
    ----------
    leaves
        Types of the leaves.
    bits
        For each leaf the bits that mark it as changed: its own and those of the structures that contain it.
    """

    def __init__(self, structure: Field) -> None:
        if structure.code != STRUCTURE:
            raise WireError("a channel that is not a structure")
        self.structure = structure
        self.leaves: list[Field] = []
        self.bits: list[int] = []
        self._own: list[int] = []
        self._number = 0
        self._add(structure, 0)

    def _add(self, field: Field, around: int) -> None:
        own = 1 << self._number
        self._number += 1
        if field.code == STRUCTURE:
            for _, member in field.members:
                self._add(member, around | own)
        else:
            self.leaves.append(field)
            self.bits.append(around | own)
            self._own.append(own)

    @cached_property
    def defaults(self) -> list[bytes]:
        return [default_value(leaf) for leaf in self.leaves]

    def changed(self, bits: int) -> list[int]:
        """The leaves that a set of change bits marks."""
        return [leaf for leaf, mask in enumerate(self.bits) if bits & mask]

    def pack_changed(self, leaves: Sequence[int]) -> int:
        """The change bits that mark `leaves`."""
        return 1 if len(leaves) == len(self.leaves) else sum(self._own[leaf] for leaf in leaves)

    def split(self, value: bytes | memoryview) -> list[bytes]:
        """Split the canonical bytes of the structure into those of each leaf. Raises WireError."""
        reader, parts = Reader(value), []
        for leaf in self.leaves:
            out: list[bytes] = []
            copy_value(reader, leaf, {}, out)
            parts.append(b"".join(out))
        if reader.left:
            raise WireError(f"{reader.left} bytes after the last field")
        return parts


def select(structure: Field, wanted: Field) -> tuple[Field, list[int]]:
    """The part of a structure that a request selects, and the numbers of its leaves.

    Parameters
    ----------
    wanted
        The structure `field` of a pvRequest. Its members select fields; a member without members selects a complete
        field. Fields that the structure does not have are left out.
    """
    numbers = iter(range(len(Layout(structure).leaves)))
    leaves: list[int] = []
    return _select(structure, wanted, numbers, leaves), leaves


def _select(structure: Field, wanted: Field, numbers: Iterator[int], leaves: list[int]) -> Field:
    named = {name: spec for name, spec in wanted.members if name != "_options"}
    kept: list[tuple[str, Field]] = []
    for name, member in structure.members:
        if named and name not in named:
            _take(member, numbers)
        elif member.code == STRUCTURE:
            inner = named.get(name, Field(STRUCTURE))
            kept.append((name, _select(member, inner, numbers, leaves)))
        else:
            kept.append((name, member))
            leaves.append(next(numbers))
    return Field(STRUCTURE, structure.id, tuple(kept))


def _take(field: Field, numbers: Iterator[int]) -> None:
    if field.code == STRUCTURE:
        for _, member in field.members:
            _take(member, numbers)
    else:
        next(numbers)
