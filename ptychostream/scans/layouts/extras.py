"""Packages that only some layouts need, imported when such a file is opened."""

from __future__ import annotations

import importlib
from typing import Any

from ptychostream.errors import ScanFileError


def needed(module: str, what: str, where: str) -> Any:
    """Import an optional package. Raises ScanFileError that says how to install it."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ScanFileError(
            f"{what} needs the package {error.name or module}, which is not installed",
            where=where,
            remedy="pip install 'ptychostream[electron]'",
        ) from error
