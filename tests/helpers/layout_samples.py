"""One asymmetric scan for the tests of layouts: every pixel has a value of its own, and no two sizes are equal."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from numpy.typing import NDArray

from ptychostream.errors import ScanFileError
from ptychostream.scans.scan import Scan
from ptychostream.scans.scan_files import ScanOptions, open_scan

ROWS, COLUMNS, HEIGHT, WIDTH = 3, 4, 6, 8
FRAMES = ROWS * COLUMNS
GEOMETRY: dict[str, Any] = {"energy_ev": 9e3, "distance_m": 1.5, "detector_pixel_m": 75e-6}
STEP_M = (2e-7, 3e-7)


def patterns(frames: int = FRAMES, dtype: Any = np.uint16) -> NDArray[Any]:
    """[frames, HEIGHT, WIDTH]: each value is its own index."""
    return np.arange(frames * HEIGHT * WIDTH).reshape(frames, HEIGHT, WIDTH).astype(dtype)


def places(frames: int = FRAMES) -> NDArray[np.float64]:
    """[frames, 2] positions in metres, no two of a kind."""
    return np.random.default_rng(5).uniform(-2e-6, 2e-6, (frames, 2))


def raster() -> NDArray[np.float64]:
    """[FRAMES, 2] (x, y) of the raster of STEP_M, written out once more by hand."""
    return np.array(
        [
            ((column - (COLUMNS - 1) / 2) * STEP_M[1], (row - (ROWS - 1) / 2) * STEP_M[0])
            for row in range(ROWS)
            for column in range(COLUMNS)
        ]
    )


def write(path: Path, **parts: Any) -> Path:
    """An HDF5 file of these parts, by path with `__` for `/`."""
    with h5py.File(path, "w") as file:
        for name, value in parts.items():
            file[name.replace("__", "/")] = value
    return path


def change(path: Path, **parts: Any) -> Path:
    """Replace parts; None removes one."""
    with h5py.File(path, "r+") as file:
        for name, value in parts.items():
            with suppress(KeyError):
                del file[name.replace("__", "/")]
            if value is not None:
                file[name.replace("__", "/")] = value
    return path


def read(path: Path, **options: Any) -> Scan:
    """The scan, its counts in memory."""
    with open_scan(path, ScanOptions(**options)) as scan:
        scan.counts = np.asarray(scan.counts)
    return scan


def refused(path: Path, match: str, **options: Any) -> ScanFileError:
    with pytest.raises(ScanFileError, match=match) as caught:
        read(path, **options)
    assert caught.value.remedy
    assert path.name in str(caught.value)
    return caught.value


def assert_is(scan: Scan, counts: NDArray[Any], positions: NDArray[np.float64]) -> None:
    np.testing.assert_array_equal(scan.counts, counts)
    np.testing.assert_allclose(scan.positions_m, positions, rtol=1e-9, atol=1e-18)
