"""Decode the updates of a position channel to samples of time, x and y. Several layouts are supported."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from p4p import Value

from ptychostream.errors import StreamError
from ptychostream.statements.units import Dimension, contradiction

_INITIAL = "record._options.atomic"
"""A field of QSRV groups alone, set in the first update of a subscription."""
_REMEDY = "send a table, three arrays, or [n, 3] rows of time, x, y; see the names of the columns"


class PartialUpdateError(StreamError):
    """An update that mixes columns of two moments."""


def decode_positions(value: Value, columns: Sequence[str] = ("time", "x", "y")) -> NDArray[np.float64] | None:
    """Decode the samples of one update.

    Parameters
    ----------
    value
        The update without an NT handler. It is an NTTable or a structure whose columns are arrays or scalars: fields at
        its top, in its `value`, or each with its own `value` (a group of NTScalarArrays). Or it is an NTNDArray with n
        rows of three values, or an NTScalarArray of such rows.
    columns
        Names of the fields of time, x and y.

    Returns
    -------
    [3, n] time, x, y as they were sent, or None
        None for an update without samples, which a channel sends before the first one, and for what stood in a QSRV
        group before: its columns may be of different moments.

    Raises
    ------
    PartialUpdateError
        The update sets some of the columns alone; the others still hold what was sent before.
    StreamError
        The update has another layout, or the columns have different lengths.
    """
    inner = value.get("value")
    try:
        if "dimension" in value:
            sizes = [int(dimension.size) for dimension in value["dimension"]]
            samples = _rows(inner, sizes)
        elif value.getID().startswith("epics:nt/NTScalarArray"):
            samples = _rows(inner, [3, len(inner) // 3]) if inner is not None else None
        else:
            read = [column_of(value, name, columns) for name in columns]
            samples = _columns(read, columns) if is_whole(value, columns) else None
    except (ValueError, TypeError, OverflowError) as error:
        raise StreamError(f"not numbers: {error}", where="positions", remedy=_REMEDY) from error
    return samples if samples is not None and samples.shape[1] else None


def _rows(values: Any, sizes: list[int]) -> NDArray[np.float64] | None:
    """Values of [n, 3] in C order as [3, n]."""
    if values is None or len(values) == 0:
        return None
    flat = np.asarray(values, np.float64)
    if len(sizes) != 2 or sizes[0] != 3 or flat.shape != (3 * sizes[1],):
        shape = " × ".join(str(size) for size in reversed(sizes))
        raise StreamError(
            f"{flat.size} values as {shape}, but a row must have three", where="positions", remedy=_REMEDY
        )
    return np.ascontiguousarray(flat.reshape(-1, 3).T)


def column_of(value: Value, name: str, columns: Sequence[str]) -> Any:
    """The field `name` at the top of an update or in its `value`, or that field's own `value`.

    Raises
    ------
    StreamError
        There is none. `columns` are the names that are looked for.
    """
    inner = value.get("value")
    for place in (inner, value):
        if isinstance(place, Value) and name in place:
            column = place[name]
            if isinstance(column, Value) and "value" in column:
                column = column["value"]
            return () if column is None else column  # None: an array that was never filled
    known = [field for place in (inner, value) if isinstance(place, Value) for field in place]
    raise StreamError(
        f"no column {name!r}",
        where="positions",
        remedy=f"name the columns of {', '.join(columns)}; there are {', '.join(known)}",
    )


def check_units(value: Value, expected: Mapping[str, str], dimension: Dimension) -> None:
    """Compare what columns say of their units (`display.units`, which is a record's EGU) with what is configured.

    Parameters
    ----------
    value
        The update. Columns that say nothing, or a text that is no unit, are not compared.
    expected
        The configured unit of each column, by its name; empty: none is.
    dimension
        What the columns are.

    Raises
    ------
    StreamError
        A column is in another unit.
    """
    inner = value.get("value")
    for name, unit in expected.items():
        for place in (inner, value):
            column = place.get(name) if isinstance(place, Value) else None
            stated = column.get("display.units") if isinstance(column, Value) else None
            if isinstance(stated, str) and (what := contradiction(name, stated, unit, dimension)):
                remedy = "configure the unit that the channel has, or correct the EGU of its record"
                raise StreamError(what, where="positions", remedy=remedy)


def is_whole(value: Value, columns: Sequence[str]) -> bool:
    """Whether the update sets all columns. False: none of them, or it is the first of a QSRV group.

    Raises
    ------
    PartialUpdateError
        It sets some of them. p4p shows the others as they were sent before.
    """
    changed = value.changedSet(expand=True)
    if _INITIAL in changed:
        return False
    paths = {name: {name, f"value.{name}", f"{name}.value"} for name in columns}
    new = [name for name in columns if paths[name] & changed]
    if new and len(new) < len(columns):
        old = [name for name in columns if name not in new]
        raise PartialUpdateError(
            f"an update with new {', '.join(new)} and old {', '.join(old)}",
            where="positions",
            remedy='give the record of the QSRV group that is written last +trigger:"*"; '
            "another server must send all columns in every update",
        )
    return bool(new)


def _columns(columns: list[Any], names: Sequence[str]) -> NDArray[np.float64]:
    arrays = [np.atleast_1d(np.asarray(column, np.float64)) for column in columns]
    if len({array.shape for array in arrays}) != 1 or arrays[0].ndim != 1:
        lengths = ", ".join(f"{array.size} of {name}" for name, array in zip(names, arrays, strict=True))
        raise StreamError(f"columns of different length: {lengths}", where="positions", remedy=_REMEDY)
    return np.stack(arrays)
