"""Decode the updates of a channel of positions by index: (first index, x[], y[])."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from p4p import Value

from ptychostream.errors import StreamError
from ptychostream.pva.position_update import column_of, is_whole


class IndexedUpdate(NamedTuple):
    """Samples of one update: the index of the first or of every one, [n] x, [n] y; scan and arm if it names them."""

    index: Any
    x: Any
    y: Any
    scan: str
    arm: str


def decode_indexed(
    value: Value, columns: Sequence[str] = ("index", "x", "y"), names: Sequence[str] = ("scan", "arm")
) -> IndexedUpdate | None:
    """Decode the samples of one update.

    Parameters
    ----------
    value
        The update without an NT handler: a structure or NTTable whose fields are at its top, in its `value`, or each
        with its own `value`. The index is one number or as many as there are x.
    columns
        Names of the fields of index, x and y.
    names
        Names of the fields that name the scan and the arm, if there are such fields.

    Returns
    -------
    IndexedUpdate or None
        None for an update without samples, and for what stood in a QSRV group before.

    Raises
    ------
    PartialUpdateError, StreamError
        See `ptychostream.pva.position_update.decode_positions`.
    """
    index, x, y = (column_of(value, name, columns) for name in columns)
    if not is_whole(value, columns) or np.size(x) == 0 or np.size(y) == 0 or np.size(index) == 0:
        if np.size(x) != np.size(y):
            raise StreamError(
                f"{np.size(x)} of {columns[1]}, {np.size(y)} of {columns[2]}, {np.size(index)} of {columns[0]}",
                where="positions",
                remedy="send as many y as x",
            )
        return None
    scan, arm = (_text(value, name) for name in names)
    return IndexedUpdate(index, np.atleast_1d(x), np.atleast_1d(y), scan, arm)


def _text(value: Value, name: str) -> str:
    """A field as text; empty where there is none. Of a column the first element counts: an update is of one arm."""
    try:
        found = np.ravel(column_of(value, name, (name,)))
    except StreamError:
        return ""
    if len(found) and (found != found[0]).any():
        raise StreamError(
            f"{name} {found[0]} and others in one update", where="positions", remedy="send an update for each"
        )
    return str(found[0]) if len(found) else ""
