"""Positions of a CXI file: the beam's on the sample, from the translation of the sample.

By the format `translation` is that of the sample, in metres along x, y and z of the laboratory: z along the beam, y up.
The detector's data runs along its `basis_vectors`, slow axis first; where they are not written the slow axis is −y and
the fast one −x. If the sample moves by t, the beam moves on it by −t. So the row of the beam on the canvas is −t along
the slow axis, and its column −t along the fast one: +t_y and +t_x under the default basis.
"""

from __future__ import annotations

import h5py
import numpy as np
from numpy.typing import NDArray

from ptychostream.errors import ScanFileError
from ptychostream.scans.hdf5_statements import state_units
from ptychostream.scans.layouts.links import refuse_broken
from ptychostream.scans.scan_hdf5 import whole
from ptychostream.statements.description import Description

BASIS = "entry_1/instrument_1/detector_1/basis_vectors"
DEFAULT_BASIS = ((0.0, -1.0, 0.0), (-1.0, 0.0, 0.0))
"""Directions of the slow and of the fast axis."""
_PLACES = (
    "entry_1/data_1/translation",
    "entry_1/sample_1/geometry_1/translation",
    "entry_1/sample_1/geometry/translation",
    "entry_1/instrument_1/detector_1/translation",
)
_UPRIGHT = 0.1
"""The largest cosine between two directions that count as perpendicular."""


def read_positions(file: h5py.File, said: Description, where: str) -> NDArray[np.float64]:
    """[N, 2] (x, y) of the beam on the canvas, in the units of the translation. Raises ScanFileError."""
    for path in _PLACES:
        dataset = file.get(path)
        if isinstance(dataset, h5py.Dataset) and dataset.ndim == 2 and dataset.shape[1] >= 2:
            state_units(said, dataset, dataset, where)
            if not said.about("position_unit_x"):
                for axis in "xy":
                    said.assume(f"position_unit_{axis}", 1.0, "CXI, whose lengths are in metres")
            said.state("position_sense", "sample", f"/{path}", "a translation, which in CXI is the sample's")
            basis = _basis(file, said, where)
            written = whole(dataset, where, "iuf")[:, :3].astype(np.float64)
            moved = np.pad(written, ((0, 0), (0, 3 - written.shape[1])))
            if not np.isfinite(moved[:, 2]).all() or np.abs(basis[:, 2]).max() == 0:
                moved[:, 2] = 0.0
            rows, along = -(moved @ basis[0]), -(moved @ basis[1])
            return np.stack([along, rows], axis=1)
    refuse_broken(file, _PLACES, where)
    raise ScanFileError(
        f"CXI without positions: no [N, 2 or 3] array at /{', /'.join(_PLACES)}",
        where=where,
        remedy="write the translations with the patterns, or give a route file (--route)",
    )


def _basis(file: h5py.File, said: Description, where: str) -> NDArray[np.float64]:
    """[2, 3] unit vectors along the slow and the fast axis of the data; their lengths are the pixel's sizes."""
    dataset = file.get(BASIS)
    if not isinstance(dataset, h5py.Dataset):
        return np.array(DEFAULT_BASIS)
    vectors = _vectors(whole(dataset, where, "iuf").astype(np.float64))
    if vectors is None:
        what = f"{dataset.name} has shape {dataset.shape}"
        remedy = "write two vectors of three numbers, slow axis first, the same for all frames"
        raise ScanFileError(what, where=where, remedy=remedy)
    lengths = np.linalg.norm(vectors, axis=1)
    with np.errstate(all="ignore"):
        units = vectors / lengths[:, None]
        oblique = float(abs(units[0] @ units[1]))
    if not (np.isfinite(units).all() and oblique < _UPRIGHT):
        what = f"{dataset.name} gives {vectors.tolist()}, which are no two perpendicular directions"
        raise ScanFileError(what, where=where, remedy="correct them, or remove them for the default basis")
    for axis, length in zip("yx", lengths.tolist(), strict=True):
        if abs(length - 1) > 1e-6:  # otherwise they are directions alone
            said.state(f"detector_pixel_{axis}", length, str(dataset.name), f"a vector of {length:.6g} m")
    return units


def _vectors(values: NDArray[np.float64]) -> NDArray[np.float64] | None:
    """[2, 3] from (2, 3), from (3, 2), or from one of these for each frame, all equal; else None."""
    if values.ndim == 3 and len(values):
        if not np.allclose(values, values[0], rtol=1e-6, atol=0):
            return None
        values = values[0]
    if values.shape == (3, 2):
        values = values.T
    return values if values.shape == (2, 3) else None
