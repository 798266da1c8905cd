"""Unpickle numpy arrays only, so that a file from elsewhere cannot run code."""

from __future__ import annotations

import io
import pickle
from typing import Any

import numpy as np

# A pickled array names the function that rebuilds it, whose module differs between versions of numpy.
_RECONSTRUCT = np.zeros(1).__reduce__()[0]

_ADMITTED: dict[tuple[str, str], Any] = {
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    ("numpy.core.multiarray", "_reconstruct"): _RECONSTRUCT,
    ("numpy._core.multiarray", "_reconstruct"): _RECONSTRUCT,
}


class _ArrayUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        try:
            return _ADMITTED[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"{module}.{name} is not allowed, only numpy arrays are") from None


def load_arrays(data: bytes) -> Any:
    """Unpickle `data` that consists of numpy arrays and Python's own containers, numbers and strings.

    Raises
    ------
    pickle.UnpicklingError
        The pickle names something else. It is not imported.
    """
    return _ArrayUnpickler(io.BytesIO(data)).load()
