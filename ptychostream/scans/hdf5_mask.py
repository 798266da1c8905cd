"""The mask of a detector, wherever a file has it: flags of whole numbers, of which some bits mean a defect."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptychostream.errors import ScanFileError
from ptychostream.scans.scan_hdf5 import whole


def read_mask(dataset: Any, where: str, bits: Iterable[int] | None = None) -> NDArray[np.bool_] | None:
    """[H, W] True for bad pixels, or None where there is no mask.

    Parameters
    ----------
    dataset
        A data set of [H, W], or with leading axes of 1. Flags that are stored as floats are read if they are whole.
    bits
        The flags that mean a defect. None: every one does.

    Raises ScanFileError if it holds no flags.
    """
    if dataset is None:
        return None
    flags = whole(dataset, where, "biuf")
    while flags.ndim > 2 and len(flags) == 1:
        flags = flags[0]
    if flags.dtype.kind == "f":
        if not (np.isfinite(flags) & (flags == np.rint(flags))).all():
            what = f"{dataset.name} has values that are no whole numbers, so it is no mask of flags"
            raise ScanFileError(what, where=where, remedy="write 1 for bad pixels and 0 for good ones")
        flags = flags.astype(np.int64)
    if bits is None or flags.dtype.kind == "b":
        return np.asarray(flags != 0)
    return np.asarray((flags.astype(np.int64) & sum(bits)) != 0)
