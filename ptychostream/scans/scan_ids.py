"""The ids of a scan file's frames: whole numbers, and how a counter that wrapped within the scan went on."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptychostream.errors import ScanFileError
from ptychostream.frames.frame_ids import MODULI, edge


def whole_ids(ids: NDArray[Any], where: str) -> NDArray[np.int64]:
    """[N] ids as int64. Raises ScanFileError: they are no whole numbers, or beyond the type."""
    if ids.dtype.kind == "O" or ids.dtype.kind in "SU":
        texts = [value.decode(errors="replace") if isinstance(value, bytes) else str(value) for value in ids.ravel()]
        wrong = next((text for text in texts if not text.strip().lstrip("-").isdigit()), None)
        if wrong is not None:
            raise _no_id(f"{wrong!r}", where)
        ids = np.array([int(text) for text in texts])
    if ids.dtype.kind not in "iuf":
        raise _no_id(f"of type {ids.dtype}", where)
    if ids.dtype.kind == "f":
        bad = ~(np.isfinite(ids) & (ids == np.rint(ids)) & (np.abs(ids) <= 2.0**53))
    else:
        bad = ids > np.uint64(2**63 - 1) if ids.dtype.kind == "u" else np.zeros(ids.shape, np.bool_)
    if bad.any():
        raise _no_id(str(ids[bad].flat[0]), where)
    return ids.astype(np.int64)


def continued(ids: NDArray[np.int64]) -> NDArray[np.int64]:
    """[N] ids of a counter that wrapped within the scan, as if it had gone on. Others are returned as they are.

    A detector counts in 8, 16, 24, 31 or 32 bits; a signed counter of 32 bits goes on with negative numbers. A wrap is
    there if ids lie near either end of the counter, none in the largest gap between them, and the ids fall less often
    in the file when those below the gap are counted on. Lost frames make no such falls.

    Examples
    --------
    >>> continued(np.array([254, 255, 0, 1])).tolist()
    [254, 255, 256, 257]
    >>> continued(np.array([0, 1, 254, 255])).tolist()
    [0, 1, 254, 255]
    """
    if len(ids) < 2:
        return ids
    raw = ids & 0xFFFFFFFF if ids.min() < 0 and ids.min() >= -(1 << 31) and ids.max() < 1 << 31 else ids
    if raw is not ids and ids.max() >= 0 and _falls(raw) < _falls(ids):
        ids = raw
    for modulus in MODULI:
        near = edge(modulus)
        if not (ids.min() >= 0 and ids.min() < near and modulus - near <= ids.max() < modulus):
            continue
        ordered = np.unique(ids)
        above = int(np.argmax(np.diff(ordered)))
        on = np.where(ids <= ordered[above], ids + modulus, ids)
        if 2 * _falls(on) <= _falls(ids) and _falls(ids):
            return on
    return ids


def _falls(ids: NDArray[np.int64]) -> int:
    return int((np.diff(ids) < 0).sum())


def _no_id(value: str, where: str) -> ScanFileError:
    what = f"a frame's id is {value}, which is no whole number of 63 bits"
    return ScanFileError(what, where=where, remedy="number the frames 0, 1, 2 …, or take the ids out of the file")
