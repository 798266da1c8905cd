"""Updates of a channel: as bytes on the wire, and decoded."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from ptychostream.rawpva.fields import Field, Layout, copy_value, read_field
from ptychostream.rawpva.wire import Reader, WireError


class RawUpdate(NamedTuple):
    """One decoded update of a channel.

    Attributes
    ----------
    time_ns
        Time of arrival, ns since the POSIX epoch.
    type
        Type of the channel. It is the same object while the channel stays connected.
    changed, overrun
        Bit sets over the leaves of `type`: those that changed, and those that changed more than once since the last
        update.
    value
        All values of the structure, serialised.
    """

    time_ns: int
    type: Field
    changed: int
    overrun: int
    value: bytes


class WireType(NamedTuple):
    """The byte order of a connection, and the channel's type as the server described it."""

    big_endian: bool
    description: bytes


class WireUpdate(NamedTuple):
    """One received update: change bits, values of the changed fields, overrun bits.

    A type in it may be a number that an earlier update of the connection defined.
    """

    time_ns: int
    body: bytes | memoryview

    @property
    def overrun(self) -> bool:
        """Whether it stands for several updates. An empty bit set is a single 0; other bit sets do not end in 0."""
        return bool(self.body[-1])


class WireUpdates(NamedTuple):
    """Some updates of one connection in order. `type` is the same object for the whole connection."""

    type: WireType
    updates: Sequence[WireUpdate]


class Decoder:
    """Decodes the updates of one connection in order, because an update has only the changed values.

    Raises
    ------
    WireError
        The type is invalid. `update` raises it for an invalid update.
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
