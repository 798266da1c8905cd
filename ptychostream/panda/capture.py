"""What a PandABox's data port sends, as samples by index. Pure: no sockets.

The box sends no index. That of a row is the number of rows that were sent before this client listened (`missed`) plus
the rows that have come since. Rows are asked for scaled: the box applies scale and offset, and divides its sums.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from pandablocks.responses import Data, EndData, EndReason, FieldCapture, FrameData, ReadyData, StartData

from ptychostream.errors import StreamError, UnitError
from ptychostream.panda.messages import Begun, Ended, Rows
from ptychostream.statements.units import factor, is_unit

Doubles = NDArray[np.float64]

_WELL = (EndReason.OK, EndReason.DISARMED)
_CAPTURES = ("Value", "Mean")


class Captures:
    """Follows the captures of one connection.

    Parameters
    ----------
    x, y
        Captured fields such as `INENC1.VAL`, or with the kind of capture: `INENC1.VAL.Mean`.
    unit
        Unit of a field for which the box has none. Empty: such a field is an error.
    where
        Names the box in messages.
    """

    def __init__(self, x: str, y: str, unit: str = "", where: str = "PandABox") -> None:
        self._names = (x, y)
        self._unit = unit
        self._where = where
        self._arm = ""
        self._columns: list[str] | None = None  # None: this capture cannot be used
        self._factors = [1.0, 1.0]
        self._next = self._first = 0
        self._unnamed = 0

    @property
    def running(self) -> bool:
        """Whether a capture goes on that can be used."""
        return self._columns is not None

    def take(self, data: Data) -> Begun | Rows | Ended | None:
        """What a message of the data port means; None: nothing for positions.

        Raises
        ------
        StreamError
            A capture begins that does not have the fields, or not their units, or a scale of 0: its rows are passed
            over.
        """
        if isinstance(data, StartData):
            return self._begin(data)
        if isinstance(data, FrameData):
            return self._rows(data.data) if self._columns is not None else None
        if isinstance(data, EndData):
            return self._end(data)
        assert isinstance(data, ReadyData), data
        return None

    def _begin(self, start: StartData) -> Begun:
        self._columns = None
        self._unnamed += not start.arm_time
        self._arm = start.arm_time or f"capture {self._unnamed}"
        self._first = self._next = start.missed
        if start.process.lower() != "scaled":
            raise StreamError(f"rows are {start.process}", where=self._where, remedy="ask for scaled rows")
        found = [_find(name, start.fields, self._where) for name in self._names]
        self._factors = [self._factor(field) for field in found]
        self._columns = [f"{field.name}.{field.capture}" for field in found]
        return Begun(self._arm, start.missed)

    def _factor(self, field: FieldCapture) -> float:
        if field.scale == 0:  # such as a small one that the box's own IOC has rounded
            raise StreamError(
                "a scale of 0 puts every row on one place",
                where=f"{self._where}, {field.name}.SCALE",
                remedy=f"write the size of a count there ({field.name}.SCALE=…), and arm again",
            )
        where = f"{self._where}, {field.name}.UNITS"
        said = field.units or ""
        if not is_unit(said):
            if not self._unit:
                raise StreamError(
                    "no unit", where=where, remedy=f"write it there (such as {field.name}.UNITS=um), or give unit"
                )
            return factor(self._unit, "length", "unit")
        metres = factor(said, "length", where)
        if self._unit and factor(self._unit, "length", "unit") != metres:
            raise UnitError(f"{said!r}, but unit = {self._unit!r}", where=where, remedy="correct one of them")
        return metres

    def _rows(self, rows: NDArray[np.void]) -> Rows:
        assert self._columns is not None
        x, y = (
            np.asarray(rows[column], np.float64) * metres
            for column, metres in zip(self._columns, self._factors, strict=True)
        )
        first, self._next = self._next, self._next + len(rows)
        return Rows(self._arm, first, x, y)

    def _end(self, end: EndData) -> Ended | None:
        if self._columns is None:
            return None
        self._columns = None
        came, problem = self._next - self._first, ""
        if end.reason not in _WELL:
            problem = f"the capture ended by {end.reason.value!r} after {end.samples} rows"
        elif end.samples != came:
            problem = f"the box counts {end.samples} rows, {came} came"
        return Ended(self._arm, came, end.reason.value, problem)


def _find(name: str, fields: Sequence[FieldCapture], where: str) -> FieldCapture:
    exact = [field for field in fields if f"{field.name}.{field.capture}" == name]
    found = exact or [field for field in fields if field.name == name and field.capture in _CAPTURES]
    if len(found) == 1:
        return found[0]
    there = ", ".join(f"{field.name}.{field.capture}" for field in fields) or "nothing"
    if found:
        raise StreamError(f"{name} is captured twice", where=where, remedy=f"name one of {there}")
    raise StreamError(
        f"{name} is not captured", where=where, remedy=f"put {name}.CAPTURE=Value, or name one of what is: {there}"
    )
