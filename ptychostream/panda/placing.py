"""What a PandABox says, given to the position source: each capture is an arm, and each row is a sample."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from ptychostream.errors import ConfigError, PtychostreamError, StreamError
from ptychostream.panda.messages import Begun, Ended, Rows
from ptychostream.panda.settings import PandaSettings
from ptychostream.positions.indexed_positions import IndexedPositions
from ptychostream.positions.positions import AxisConfig

if TYPE_CHECKING:
    from ptychostream.panda.reader import PandaReader

Heard = Begun | Rows | Ended


def in_metres(axes: AxisConfig) -> AxisConfig:
    """The axes of a box's positions: it says its units itself."""
    return axes.model_copy(update={"unit": "m"})


def open_reader(
    settings: PandaSettings,
    sink: Callable[[Heard, float], None],
    on_bad: Callable[[PtychostreamError], None],
    where: str,
) -> PandaReader:
    """A reader of the box. Raises ConfigError that names `where` if the package that reads it is not installed."""
    try:
        from ptychostream.panda.reader import PandaReader
    except ImportError as error:
        raise ConfigError(f"{error}", where=where, remedy="pip install 'ptychostream[panda]'") from error
    return PandaReader(settings, sink, on_bad)


def ended_badly(ended: Ended) -> StreamError | None:
    """What was wrong with the end of a capture; None: nothing."""
    if not ended.problem:
        return None
    return StreamError(ended.problem, where="PandABox", remedy="later frames of it have no position")


def tell(source: IndexedPositions, heard: Heard, arrived: float) -> None:
    """Give the source what was heard at `arrived`, seconds since the POSIX epoch."""
    if isinstance(heard, Begun):
        source.begin(arm=heard.arm, never_before=heard.missed, arrival=arrived)
    elif isinstance(heard, Rows):
        source.update(heard.first, heard.x_m, heard.y_m, arm=heard.arm, arrival=arrived)
    else:
        source.end()
