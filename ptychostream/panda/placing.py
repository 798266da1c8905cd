"""What a PandABox says, given to the position source: each capture is an arm, and each row is a sample."""

from __future__ import annotations

from ptychostream.panda.messages import Begun, Ended, Rows
from ptychostream.positions.indexed_positions import IndexedPositions


def tell(source: IndexedPositions, heard: Begun | Rows | Ended, arrived: float) -> None:
    """Give the source what was heard at `arrived`, seconds since the POSIX epoch."""
    if isinstance(heard, Begun):
        source.begin(arm=heard.arm, never_before=heard.missed, arrival=arrived)
    elif isinstance(heard, Rows):
        source.update(heard.first, heard.x_m, heard.y_m, arm=heard.arm, arrival=arrived)
    else:
        source.end()
