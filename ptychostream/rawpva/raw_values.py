"""Updates of a channel: as they came on the wire, and as what they mean."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from ptychostream.rawpva.fields import Field, Layout, copy_value, read_field
from ptychostream.rawpva.wire import Reader, WireError


class RawUpdate(NamedTuple):
    """One update of a channel.

    Attributes
    ----------
    time_ns
        When it came, ns since the POSIX epoch.
    type
        The channel's; the same object while the channel stays connected.
    changed, overrun
        Bit sets over the leaves of `type`: what changed, and what changed more than once since the last update.
    value
        All of the structure's values, serialised.
    """

    time_ns: int
    type: Field
    changed: int
    overrun: int
    value: bytes


class WireType(NamedTuple):
    """What a connection began with: the byte order, and the channel's type as it was described."""

    big_endian: bool
    description: bytes


class WireUpdate(NamedTuple):
    """One update as it came: change bits, values of what changed, overrun bits.

    Types within it may be numbers that were given in an earlier update of the connection.
    """

    time_ns: int
    body: bytes | memoryview

    @property
    def overrun(self) -> bool:
        """Whether it stands for more than one: a bit set ends in a byte that is not 0, or is empty, a 0."""
        return bool(self.body[-1])


class WireUpdates(NamedTuple):
    """Some updates of one connection, in order; `type` is the same object while it lasts."""

    type: WireType
    updates: Sequence[WireUpdate]


class Decoder:
    """Gives the updates of one connection their meaning, one after the other: each brings what changed alone.

    Raises
    ------
    WireError
        The type makes no sense; from `update` too.
    """

    def __init__(self, of: WireType) -> None:
        self._cache: dict[int, Field] = {}
        self._big_endian = of.big_endian
        structure = read_field(Reader(of.description, of.big_endian), self._cache)
        if structure is None:
            raise WireError("a monitor without a type")
        self._layout = Layout(structure)
        self._leaves = list(self._layout.defaults)

    def update(self, came: WireUpdate) -> RawUpdate:
        reader = Reader(came.body, self._big_endian)
        changed = self._layout.changed(reader.bits())
        for leaf in changed:
            out: list[bytes] = []
            copy_value(reader, self._layout.leaves[leaf], self._cache, out)
            self._leaves[leaf] = out[0] if len(out) == 1 else b"".join(out)
        overrun = self._layout.changed(reader.bits())
        if reader.left:
            raise WireError(f"{reader.left} bytes after an update")
        return RawUpdate(came.time_ns, self._layout.structure, _set(changed), _set(overrun), b"".join(self._leaves))


def _set(leaves: list[int]) -> int:
    return sum(1 << leaf for leaf in leaves)
