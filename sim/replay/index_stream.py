"""Simulated position sources that are keyed by index: a PVA channel of (first index, x[], y[]), and a PandABox."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np
import pvaccess as pva
from numpy.typing import ArrayLike, NDArray

from ptychostream.sim.panda.box import SimulatedPanda

_FIELDS = ("INENC1.VAL", "INENC2.VAL")
_UNIT_M = 1e-6


class PositionSender(Protocol):
    """What tells of the stage while frames are sent."""

    def begin(self, positions_m: NDArray[np.float64]) -> None:
        """Begin a scan with the frames' positions [N, 2]."""

    def frame(self, number: int, time_s: float) -> None:
        """Note that a frame was taken now."""

    def end(self) -> None:
        """End the scan. Returns when all its samples are sent."""

    def stop(self) -> None:
        """Send nothing more."""


class IndexStream:
    """Sends the position of each frame by index, in blocks. The index begins at 0 in every scan.

    Parameters
    ----------
    bulk
        Positions in a block.
    unit_m
        Unit of the sent positions, metres.
    send
        Sends an update on the channel.
    """

    def __init__(self, bulk: int, unit_m: float, send: Callable[[pva.PvObject], None]) -> None:
        self._bulk, self._unit_m, self._send = bulk, unit_m, send
        self._positions = np.empty((0, 2))
        self._first = self._next = 0

    def begin(self, positions_m: NDArray[np.float64]) -> None:
        """See `PositionSender`."""
        self._positions, self._first, self._next = positions_m / self._unit_m, 0, 0

    def frame(self, number: int, time_s: float) -> None:  # noqa: ARG002 - the time is of no use here
        """See `PositionSender`."""
        self._next = number + 1
        if self._next - self._first >= self._bulk:
            self.end()

    def end(self) -> None:
        """See `PositionSender`."""
        if self._next > self._first:
            x, y = self._positions[self._first : self._next].T
            self._send(index_update(self._first, x, y))
            self._first = self._next

    def stop(self) -> None:
        """See `PositionSender`."""


class PandaStream:
    """A PandABox that is armed for each scan and captures a row for each frame.

    Parameters
    ----------
    control_port, data_port
        Its ports; 0: any free one.
    """

    def __init__(self, control_port: int, data_port: int) -> None:
        self.box = SimulatedPanda(control_port, data_port)
        for field in _FIELDS:
            self.box.capture(field, "um")
        self.box.__enter__()
        self._positions = np.empty((0, 2))

    def begin(self, positions_m: NDArray[np.float64]) -> None:
        """See `PositionSender`."""
        self._positions = positions_m / _UNIT_M
        self.box.arm()

    def frame(self, number: int, time_s: float) -> None:  # noqa: ARG002 - the time is of no use here
        """See `PositionSender`."""
        x, y = self._positions[number]
        self.box.rows({_FIELDS[0]: np.array([x]), _FIELDS[1]: np.array([y])})

    def end(self) -> None:
        """See `PositionSender`."""
        self.box.end()

    def stop(self) -> None:
        """See `PositionSender`."""
        self.box.__exit__(None, None, None)


def index_update(first: int, x: ArrayLike, y: ArrayLike) -> pva.PvObject:
    """One update of a channel by index. The first one has no positions."""
    update = pva.PvObject({"index": pva.LONG, "x": [pva.DOUBLE], "y": [pva.DOUBLE]})
    update["index"] = first
    for name, column in (("x", x), ("y", y)):
        update[name] = np.ascontiguousarray(column, np.float64)
    return update
