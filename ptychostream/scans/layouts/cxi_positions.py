"""Positions of a CXI file: the beam's on the sample, from the translation of the sample.

By the format `translation` is that of the sample, in metres along x, y and z of the laboratory: z along the beam, y up.
The detector's data runs along its `basis_vectors`, slow axis first; where they are not written the slow axis is −y and
the fast one −x. If the sample moves by t, the beam moves on it by −t. So the row of the beam on the canvas is −t along
the slow axis, and its column −t along the fast one: +t_y and +t_x under the default basis.
"""

from __future__ import annotations

import re
from typing import NamedTuple

import h5py
import numpy as np
from numpy.typing import NDArray

from ptychostream.errors import ScanFileError
from ptychostream.scans.hdf5_statements import state_units, unit_of
from ptychostream.scans.layouts.links import at, refuse_broken
from ptychostream.scans.layouts.rivals import refuse_unequal
from ptychostream.scans.scan_hdf5 import whole
from ptychostream.statements.description import Description

_NUMBERED = re.compile(
    r"/?(?P<entry>entry_\d+)/(?:(?P<kind>data|image)_(?P<data>\d+)|instrument_1/detector_(?P<detector>\d+))/data"
)
DEFAULT_BASIS = ((0.0, -1.0, 0.0), (-1.0, 0.0, 0.0))
"""Directions of the slow and of the fast axis."""
_OF_THE_SAMPLE = ("sample_1/geometry_1/translation", "sample_1/geometry/translation")
_UPRIGHT = 0.1
"""The largest cosine between two directions that count as perpendicular."""


class CxiPaths(NamedTuple):
    """Paths of one array of patterns and of what stands beside it.

    Attributes
    ----------
    patterns, entry, instrument, data, detector
        `data` is the group with the translation of the sample, `detector` that of the detector of these patterns.
    """

    patterns: str
    entry: str
    instrument: str
    data: str
    detector: str


def cxi_paths(patterns: str) -> CxiPaths | None:
    """The paths that belong to the patterns at a path as CXI numbers it: `data_2` is of `detector_2`. None: another."""
    match = _NUMBERED.fullmatch(patterns)
    if match is None:
        return None
    entry, number = match["entry"], match["data"] if match["kind"] == "data" else match["detector"] or "1"
    instrument = f"{entry}/instrument_1"
    return CxiPaths(patterns, entry, instrument, f"{entry}/data_{number}", f"{instrument}/detector_{number}")


def read_positions(file: h5py.File, parts: CxiPaths, said: Description, where: str) -> NDArray[np.float64]:
    """[N, 2] (x, y) of the beam on the canvas, in the units of the translation. Raises ScanFileError."""
    of_sample = (f"{parts.data}/translation", *(f"{parts.entry}/{path}" for path in _OF_THE_SAMPLE))
    places = (*of_sample, f"{parts.detector}/translation")
    _refuse_unequal_places(file, of_sample, where)
    for path in places:
        dataset = at(file, path)
        if _is_translation(dataset):
            state_units(said, dataset, dataset, where)
            if not said.about("position_unit_x"):
                for axis in "xy":
                    said.assume(f"position_unit_{axis}", 1.0, "CXI, whose lengths are in metres")
            said.state("position_sense", "sample", f"/{path}", "a translation, which in CXI is the sample's")
            basis = _basis(at(file, f"{parts.detector}/basis_vectors"), said, where)
            written = whole(dataset, where, "iuf")[:, :3].astype(np.float64)
            moved = np.pad(written, ((0, 0), (0, 3 - written.shape[1])))
            if not np.isfinite(moved[:, 2]).all() or np.abs(basis[:, 2]).max() == 0:
                moved[:, 2] = 0.0
            rows, along = -(moved @ basis[0]), -(moved @ basis[1])
            return np.stack([along, rows], axis=1)
    refuse_broken(file, places, where)
    raise ScanFileError(
        f"CXI without positions: no [N, 2 or 3] array at /{', /'.join(places)}",
        where=where,
        remedy="write the translations with the patterns, or give a route file (--route)",
    )


def _is_translation(dataset: object) -> bool:
    return isinstance(dataset, h5py.Dataset) and dataset.ndim == 2 and dataset.shape[1] >= 2


def _refuse_unequal_places(file: h5py.File, paths: tuple[str, ...], where: str) -> None:
    """Raise ScanFileError if two translations of the sample do not agree."""
    found = [part for path in paths if _is_translation(part := at(file, path))]
    told = [
        (str(part.name), whole(part, where, "iuf")[:, :2].astype(np.float64) * (unit_of(part, where) or 1.0))
        for part in found
        if len(found) > 1
    ]
    refuse_unequal(told, where, "positions", "take the wrong one out of the file, or give a route file (--route)")


def _basis(dataset: object, said: Description, where: str) -> NDArray[np.float64]:
    """[2, 3] unit vectors along the slow and the fast axis of the data; their lengths are the pixel's sizes."""
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
