"""Read what ptychodus writes: assembled patterns (`diffraction.h5`) with the product beside it (`product.h5`).

Patterns: `patterns` [N, H, W], `indexes` [N], `bad_pixels` [H, W] (True is bad). Product: `probe_position_indexes`,
`probe_position_x_m`, `probe_position_y_m`, the attributes `photon_energy_eV` and `detector_object_distance_m`, and
`probe`. A pattern and a position belong together by index. A product alone has no patterns.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from ptychostream.errors import NoPositionsError, ScanFileError
from ptychostream.scans.layouts.raster import given_raster
from ptychostream.scans.scan_hdf5 import checked_dataset, open_hdf5, text, whole
from ptychostream.scans.scan_parts import ScanOptions, ScanParts
from ptychostream.statements.description import Description

DATA = ("patterns",)
INDEXES = "probe_position_indexes"
POSITIONS = ("probe_position_x_m", "probe_position_y_m")
ENERGIES = ("photon_energy_eV", "probe_energy_eV")
DISTANCE = "detector_object_distance_m"
_PRODUCT = "product.h5"


def matches(file: h5py.File) -> bool:
    """Whether ptychodus wrote it: patterns, or a product."""
    patterns = isinstance(file.get("patterns"), h5py.Dataset) and isinstance(file.get("indexes"), h5py.Dataset)
    return patterns or (INDEXES in file and DISTANCE in file.attrs)


def read_parts(file: h5py.File, options: ScanOptions, where: str) -> ScanParts:
    """Read the layout. The counts stay on disk. Raises ScanFileError."""
    if "patterns" not in file:
        raise ScanFileError(
            "a product of ptychodus has no patterns",
            where=where,
            remedy="open diffraction.h5 beside it; --initial and --reference take the product as a reconstruction",
        )
    source = checked_dataset(file["patterns"], where)
    said = Description(where)
    for axis, name in (("x", "detector_pixel_width_m"), ("y", "detector_pixel_height_m")):
        _state(said, f"detector_pixel_{axis}", source.attrs.get(name), f"/patterns@{name}")
    indexes = whole(file["indexes"], where, "iu").astype(np.int64)
    product = Path(where).with_name(_PRODUCT)
    positions, probe = None, None
    if product.exists():
        with open_hdf5(product) as other:
            probe = _probe(other, where)
            state_product(said, other)
            positions = _places(other, indexes, where) if options.route is None else None
    elif options.route is None:
        positions = given_raster(options, said)
        if positions is None:
            raise NoPositionsError(
                f"patterns of ptychodus without {_PRODUCT} beside them, which has the positions",
                where=where,
                remedy=f"copy {_PRODUCT} beside it, or give a route file (--route)",
            )
    mask = file.get("bad_pixels")
    return ScanParts(
        counts=source,
        raw_positions=positions,
        said=said,
        bad_pixels=whole(mask, where, "biu") != 0 if isinstance(mask, h5py.Dataset) else None,
        probe=probe if probe is not None and probe.shape[1:] == source.shape[1:] else None,
        frame_ids=indexes,
    )


def state_product(said: Description, product: h5py.File) -> None:
    """Add what a product says of the beam and of the units."""
    for name in ENERGIES:
        _state(said, "energy", product.attrs.get(name), f"{product.filename}:/@{name}")
    _state(said, "distance", product.attrs.get(DISTANCE), f"{product.filename}:/@{DISTANCE}")
    if isinstance(product.get("object"), h5py.Dataset):
        _state(said, "object_pixel", product["object"].attrs.get("pixel_width_m"), f"{product.filename}:/object")
    said.state("scan_id", text(product.attrs.get("name")) or None, f"{product.filename}:/@name")
    for axis, name in zip("xy", POSITIONS, strict=True):
        said.state(f"position_unit_{axis}", 1.0, f"{product.filename}:/{name}", "metres, as its name says")


def _state(said: Description, quantity: str, value: Any, place: str) -> None:
    if value is not None and float(value):
        said.state(quantity, float(value), place)


def _places(product: h5py.File, indexes: NDArray[np.int64], where: str) -> NDArray[np.float64]:
    """[N, 2] by index. NaN for a pattern that the product has no position of."""
    known = whole(product.get(INDEXES), where, "iu").ravel().tolist()
    x, y = (whole(product.get(name), where, "iuf").ravel() for name in POSITIONS)
    if len(set(known)) != len(known) or not len(known) == len(x) == len(y):
        raise ScanFileError(
            f"{product.filename} has {len(known)} indexes ({len(set(known))} different), {len(x)} x and {len(y)} y",
            where=where,
            remedy="write the product again with one position an index",
        )
    rows = {index: row for row, index in enumerate(known)}
    places = np.full((len(indexes), 2), np.nan)
    for place, index in enumerate(indexes.tolist()):
        if index in rows:
            places[place] = x[rows[index]], y[rows[index]]
    return places


def _probe(product: h5py.File, where: str) -> NDArray[np.complex64] | None:
    """[modes, H, W]: the first of the OPR modes."""
    dataset = product.get("probe")
    if not isinstance(dataset, h5py.Dataset):
        return None
    values = whole(dataset, where, "iufc").astype(np.complex64)
    while values.ndim > 3:
        values = values[0]
    return values if values.ndim == 3 else None
