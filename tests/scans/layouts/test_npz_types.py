"""Arrays of an npz in a type that their key cannot have."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ptychostream.errors import ScanFileError
from ptychostream.scans.scan_files import open_scan

PARTS = {
    "counts": np.ones((3, 8, 8), np.uint16),
    "positions_m": np.array([[0.0, 0.0], [5e-6, 0.0], [0.0, 5e-6]]),
    "energy_ev": 1e4,
    "distance_m": 1.0,
    "detector_pixel_m": 75e-6,
}


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("times", np.ones(3, complex)),
        ("frame_ids", np.array(["1", "2", "3"])),
        ("bad_pixels", np.zeros((8, 8), complex)),
        ("probe", np.array([["a"]])),
    ],
)
def test_a_type_that_would_lose_a_part_is_refused(key: str, value: np.ndarray, tmp_path: Path) -> None:
    np.savez(tmp_path / "scan.npz", **PARTS, **{key: value})
    with pytest.raises(ScanFileError, match=f"{key} is of type"), open_scan(tmp_path / "scan.npz"):
        pass


def test_whole_numbers_as_floats_are_taken(tmp_path: Path) -> None:
    np.savez(tmp_path / "scan.npz", **PARTS, frame_ids=np.arange(3.0), times=np.arange(3))
    with open_scan(tmp_path / "scan.npz") as scan:
        assert scan.frame_ids is not None and scan.frame_ids.tolist() == [0, 1, 2]
