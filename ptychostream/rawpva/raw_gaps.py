"""Count the updates that are lost in an overrun, by the uniqueId of NTNDArrays."""

from __future__ import annotations

from ptychostream.rawpva.fields import STRUCTURE, Field, Layout
from ptychostream.rawpva.raw_values import Decoder, WireType, WireUpdate
from ptychostream.rawpva.wire import WireError

_ID = "uniqueId"
_INT32 = 0x22


def missed_between(of: WireType, before: WireUpdate | None, after: WireUpdate) -> int:
    """The number of updates missing between two successive ones, if the second is an overrun.

    It is 1, the smallest possible number, if the ids do not give it: the type has none, or the id was reset or did not
    change.
    """
    ids = None if before is None else (_unique_id(of, before), _unique_id(of, after))
    if ids is None or ids[0] is None or ids[1] is None:
        return 1
    return max(1, ids[1] - ids[0] - 1)


def _unique_id(of: WireType, update: WireUpdate) -> int | None:
    try:
        found = Decoder(of).update(update)
        leaf = _leaf(found.type)
        if leaf is None or not found.changed >> leaf & 1:
            return None
        return int.from_bytes(Layout(found.type).split(found.value)[leaf], "little", signed=True)
    except WireError:  # an update between them gave a number to a type
        return None


def _leaf(structure: Field) -> int | None:
    """The number of the leaf that is the id."""
    for at, (name, member) in enumerate(structure.members):
        if name == _ID and member.code == _INT32:
            return len(Layout(Field(STRUCTURE, members=structure.members[:at])).leaves)
    return None
