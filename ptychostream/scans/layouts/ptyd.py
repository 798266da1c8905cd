"""Read the .ptyd files of ptypy: `meta` (energy in keV, distance and psize in metres) and `chunks/0`, `chunks/1` …

A chunk has `data` [n, H, W], `positions` [n, 2] metres (y, x), `indices` [n] and perhaps `weights`, of which a pixel is
good if it is larger than 0. `meta/center` is where the beam is; it has to be the middle of the pattern.
"""

from __future__ import annotations

import h5py
import numpy as np
from numpy.typing import NDArray

from ptychostream.errors import ScanFileError
from ptychostream.scans.layouts.links import broken, missing_link
from ptychostream.scans.layouts.stacks import JoinedFrames
from ptychostream.scans.scan_hdf5 import checked_dataset, group, number, text, whole
from ptychostream.scans.scan_parts import ScanOptions, ScanParts
from ptychostream.statements.description import Description

DATA = ("chunks/0/data",)


def matches(file: h5py.File) -> bool:
    """Whether it has the groups of a .ptyd."""
    return isinstance(file.get("chunks"), h5py.Group) and isinstance(file.get("meta"), h5py.Group)


def read_parts(file: h5py.File, options: ScanOptions, where: str) -> ScanParts:
    """Read the layout. The counts stay on disk. Raises ScanFileError."""
    chunks = _chunks(file, where)
    sources = [checked_dataset(chunk["data"], where) for chunk in chunks]
    said = _statements(file, where)
    positions = None
    if options.route is None:
        positions = np.concatenate([_positions(chunk, where) for chunk in chunks])[:, ::-1]  # stored as (y, x)
        for axis in "xy":
            said.state(f"position_unit_{axis}", 1.0, "/chunks/…/positions", "metres, as ptypy prescribes")
    _check_centre(file, sources[0].shape[1:], where)
    indices = [whole(chunk["indices"], where, "iu").astype(np.int64) for chunk in chunks if "indices" in chunk]
    return ScanParts(
        counts=JoinedFrames(sources) if len(sources) > 1 else sources[0],
        raw_positions=positions,
        said=said,
        bad_pixels=_bad_pixels(file, chunks, where),
        frame_ids=np.concatenate(indices) if len(indices) == len(chunks) else None,
    )


def _chunks(file: h5py.File, where: str) -> list[h5py.Group]:
    parent = file["chunks"]
    names = sorted((str(name) for name in parent if str(name).isdigit()), key=int)
    found = []
    for name in names:
        if target := broken(parent, name):
            raise missing_link(parent, name, target, where)
        if not isinstance(parent[name], h5py.Group) or not isinstance(parent[name].get("data"), h5py.Dataset):
            raise ScanFileError(f"/chunks/{name} has no data", where=where, remedy="prepare the data with ptypy again")
        found.append(parent[name])
    if not found:
        raise ScanFileError("it has no chunks of data", where=where, remedy="prepare the data with ptypy again")
    return found


def _statements(file: h5py.File, where: str) -> Description:
    meta, said = group(file, "meta"), Description(where)
    energy, distance = number(meta.get("energy")), number(meta.get("distance"))
    said.state("energy", None if energy is None else energy * 1e3, "/meta/energy", f"{energy} keV")
    said.state("distance", distance, "/meta/distance")
    if isinstance(meta.get("psize"), h5py.Dataset):
        sizes = np.broadcast_to(whole(meta["psize"], where, "iuf").ravel(), 2) if meta["psize"].size in (1, 2) else ()
        for axis, size in zip("yx", sizes, strict=False):
            said.state(f"detector_pixel_{axis}", float(size), "/meta/psize")
    said.state("scan_id", text(meta.get("label")) or None, "/meta/label")
    return said


def _positions(chunk: h5py.Group, where: str) -> NDArray[np.float64]:
    values = whole(chunk.get("positions"), where, "iuf").astype(np.float64)
    if values.ndim != 2 or values.shape[1] != 2:
        what = f"{chunk.name}/positions has shape {values.shape}, not (frames, 2)"
        raise ScanFileError(what, where=where, remedy="give a route file (--route)")
    return values


def _check_centre(file: h5py.File, shape: tuple[int, ...], where: str) -> None:
    centre = group(file, "meta").get("center")
    if not isinstance(centre, h5py.Dataset) or centre.dtype.kind not in "iuf" or centre.size != 2:
        return
    found = whole(centre, where, "iuf").ravel().astype(np.float64)
    if np.abs(found - np.array(shape) / 2).max() > 1.0:
        raise ScanFileError(
            f"/meta/center is {found.tolist()}, and the patterns have shape {tuple(shape)}",
            where=where,
            remedy="prepare the data with ptypy such that the beam is in the middle of the pattern",
        )


def _bad_pixels(file: h5py.File, chunks: list[h5py.Group], where: str) -> NDArray[np.bool_] | None:
    weights = [chunk["weights"] for chunk in chunks if isinstance(chunk.get("weights"), h5py.Dataset)]
    if not weights or not weights[0].size:
        common = file.get("info/weight2d")
        if not isinstance(common, h5py.Dataset) or common.ndim != 2:
            return None
        return ~(whole(common, where, "biuf") > 0)
    first: NDArray[np.bool_] | None = None
    for chunk, one in zip(chunks, weights, strict=False):
        checked_dataset(one, where)
        if len(weights) != len(chunks) or one.shape != chunk["data"].shape or one.dtype.kind not in "biuf":
            what = f"{one.name} has shape {one.shape}, the patterns beside it {chunk['data'].shape}"
            raise ScanFileError(what, where=where, remedy="prepare the data with ptypy again")
        for index in range(len(one)):
            bad = ~(np.asarray(one[index]) > 0)
            first = bad if first is None else first
            if not np.array_equal(bad, first):
                raise ScanFileError(
                    f"{one.name}: the mask of pattern {index} is another than the first one's",
                    where=where,
                    remedy="masks that differ from frame to frame cannot be read; store one mask",
                )
    return first
