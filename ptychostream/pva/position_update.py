"""Decode the updates of a position channel to samples of time, x and y. Several layouts are supported."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from p4p import Value

from ptychostream.errors import StreamError

_REMEDY = "send a table, three arrays, or [n, 3] rows of time, x, y; see the names of the columns"


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
        None for an update without samples, which a channel sends before the first one.

    Raises
    ------
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
            samples = _columns([_column(value, inner, name) for name in columns], columns)
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


def _column(value: Value, inner: Any, name: str) -> Any:
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
        remedy=f"name the columns of time, x and y; there are {', '.join(known)}",
    )


def _columns(columns: list[Any], names: Sequence[str]) -> NDArray[np.float64]:
    arrays = [np.atleast_1d(np.asarray(column, np.float64)) for column in columns]
    if len({array.shape for array in arrays}) != 1 or arrays[0].ndim != 1:
        lengths = ", ".join(f"{array.size} of {name}" for name, array in zip(names, arrays, strict=True))
        raise StreamError(f"columns of different length: {lengths}", where="positions", remedy=_REMEDY)
    return np.stack(arrays)
