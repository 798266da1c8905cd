"""Read the pair of files that pty-chi, ptychodus and PtychoViT exchange: `NAME_dp.hdf5` and `NAME_para.hdf5`.

The first has `dp` [N, H, W], the other `probe_position_x_m`, `probe_position_y_m` [N], `probe` [(opr,) modes, H, W] and
`object`, whose attributes `pixel_width_m` and `pixel_height_m` are the object pixel. Neither says the energy, the
distance or the detector pixel: the energy has to be given.

A position is that of the patch's centre, larger for a larger row (y) or column (x). pty-chi scales the probe such that
Σ|probe|² = counts / (h · w), so it is multiplied by √(h · w) (`ptychostream.scans.scan.Scan.probe` is unitary).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from ptychostream.errors import ScanFileError
from ptychostream.scans.hdf5_statements import unit_of, unit_text
from ptychostream.scans.layouts.choosing import BOTH, chosen_frames
from ptychostream.scans.layouts.matlab import is_matlab
from ptychostream.scans.scan_hdf5 import checked_dataset, open_hdf5, whole
from ptychostream.scans.scan_parts import ScanOptions, ScanParts
from ptychostream.statements.description import Description

DATA = ("dp",)
POSITIONS = ("probe_position_x_m", "probe_position_y_m")
_DP, _PARA = "_dp", "_para"


def matches(file: h5py.File) -> bool:
    """Whether it is one of the two files."""
    patterns = file.get(DATA[0])
    if isinstance(patterns, h5py.Dataset):
        return not is_matlab(patterns)
    return all(name in file for name in (*POSITIONS, "probe")) and "name" not in file.attrs


def read_parts(file: h5py.File, options: ScanOptions, where: str) -> ScanParts:
    """Read the layout. The counts stay on disk. Raises ScanFileError."""
    if DATA[0] not in file:
        raise ScanFileError(
            "it has the parameters of a pair of pty-chi, no patterns",
            where=where,
            remedy=f"open {Path(where).name.replace(_PARA, _DP)} beside it, which has the patterns",
        )
    source = checked_dataset(file[DATA[0]], where)
    said = Description(where)
    with open_hdf5(_partner(where)) as para:
        positions = None if options.route is not None else _positions(para, said, where)
        probe = probe_from(para.get("probe"), where)
        _object_pixel(para, said)
        good = para.get("valid_pixel_mask")
        bad_pixels = ~(whole(good, where, "biu") > 0) if isinstance(good, h5py.Dataset) else None
    counts = chosen_frames(
        source,
        where,
        name="/dp",
        pick=dict(options.pick),
        raster=options.scan_shape,
        places=None if positions is None else len(positions),
        transpose=options.transpose,
    )
    return ScanParts(counts=counts, raw_positions=positions, said=said, bad_pixels=bad_pixels, probe=probe, obeys=BOTH)


def probe_from(dataset: Any, where: str) -> NDArray[np.complex64] | None:
    """[modes, H, W] in our scale, from pty-chi's [opr modes, modes, H, W] or [modes, H, W]. The main mode of an OPR."""
    if not isinstance(dataset, h5py.Dataset):
        return None
    values = whole(dataset, where, "iufc").astype(np.complex64)
    if values.ndim == 2:
        values = values[None]
    if values.ndim == 4:
        values = values[0]
    if values.ndim != 3:
        what = f"{dataset.name} has shape {dataset.shape}, not (opr modes, modes, height, width)"
        raise ScanFileError(what, where=where, remedy="correct the file")
    return (values * np.sqrt(values.shape[-1] * values.shape[-2])).astype(np.complex64)


def _partner(where: str) -> Path:
    path = Path(where)
    if _DP not in path.name:
        raise ScanFileError(
            "it has the patterns of a pair of pty-chi, and its name does not tell that of the other file",
            where=where,
            remedy="name the two NAME_dp.hdf5 and NAME_para.hdf5, or give --data dp and the positions (--route)",
        )
    head, _, tail = path.name.rpartition(_DP)
    partner = path.with_name(head + _PARA + tail)
    if not partner.exists():
        raise ScanFileError(
            f"its other file, {partner.name}, is not there",
            where=where,
            remedy="copy it beside this one, or give --data dp and the positions (--route, --x-name)",
        )
    return partner


def _positions(para: h5py.File, said: Description, where: str) -> NDArray[np.float64]:
    if "probe_positions_0" in para or "ppX" in para:
        raise ScanFileError(
            f"{Path(str(para.filename)).name} is of PtychoShelves, whose axes and signs are others",
            where=where,
            remedy="give --data dp and a route of the positions in canvas axes (--route): PtychoShelves takes "
            "-ppX for its columns and -ppY for its rows",
        )
    columns = []
    for name in POSITIONS:
        if name not in para:
            raise ScanFileError(
                f"{Path(str(para.filename)).name} has no {name}", where=where, remedy="give a route file (--route)"
            )
        columns.append(whole(para[name], where, "iuf").ravel())
    if len(columns[0]) != len(columns[1]):
        what = f"{len(columns[0])} x positions, but {len(columns[1])} y positions"
        raise ScanFileError(what, where=where, remedy="write the pair again")
    for axis, name in zip("xy", POSITIONS, strict=True):
        said.state(f"position_unit_{axis}", 1.0, f"{para.filename}:/{name}", "metres, as its name says")
        place = f"{para.filename}:/{name}@units"
        said.state(f"position_unit_{axis}", unit_of(para[name], where), place, unit_text(para[name], where))
    return np.stack(columns, axis=1).astype(np.float64)


def _object_pixel(para: h5py.File, said: Description) -> None:
    for part in ("object", "probe"):
        if isinstance(para.get(part), h5py.Dataset):
            for name in ("pixel_width_m", "pixel_height_m"):
                if (value := para[part].attrs.get(name)) is not None:
                    said.state("object_pixel", float(np.ravel(value)[0]), f"{para.filename}:/{part}@{name}")
