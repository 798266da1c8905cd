"""Read the .hspy files of HyperSpy: `/Experiments/NAME/data` and one group `axis-K` for each axis.

An axis says `name`, `scale`, `offset`, `units`, `size` and whether it belongs to the scan (`navigate`).
"""

from __future__ import annotations

from typing import Any

import h5py

from ptychostream.errors import ScanFileError
from ptychostream.scans.layouts.electron.axes import Axis, stem_parts
from ptychostream.scans.scan_hdf5 import checked_dataset, text
from ptychostream.scans.scan_parts import ScanOptions, ScanParts
from ptychostream.statements.description import Description

DATA = ("Experiments",)


def matches(file: h5py.File) -> bool:
    """Whether HyperSpy wrote it."""
    return isinstance(file.get("Experiments"), h5py.Group)


def read_parts(file: h5py.File, options: ScanOptions, where: str) -> ScanParts:
    """Read the layout. The counts stay on disk. Raises ScanFileError."""
    group = _signal(file, options, where)
    source = checked_dataset(group["data"], where)
    axes = [_axis(group, index, source, where) for index in range(source.ndim)]
    said = Description(where)
    for part in ("TEM", "SEM"):
        parent = group.get(f"metadata/Acquisition_instrument/{part}")
        if isinstance(parent, h5py.Group):
            _state_energy(said, parent)
    return stem_parts(source, axes, options, said, where, name=str(source.name))


def _signal(file: h5py.File, options: ScanOptions, where: str) -> h5py.Group:
    found = [
        group
        for group in file["Experiments"].values()
        if isinstance(group, h5py.Group) and isinstance(group.get("data"), h5py.Dataset) and group["data"].ndim >= 3
    ]
    if options.data is not None:
        found = [group for group in found if group["data"].name.strip("/") == options.data.strip("/")]
    if len(found) != 1:
        names = ", ".join(f"{group['data'].name} {group['data'].shape}" for group in found)
        raise ScanFileError(
            f"{len(found)} signals that may be patterns",
            where=where,
            remedy=f"name one with --data: {names}"
            if names
            else "give a file with patterns (rows, columns, height, width)",
        )
    return found[0]


def _axis(group: h5py.Group, index: int, source: Any, where: str) -> Axis:
    axis = group.get(f"axis-{index}")
    if not isinstance(axis, h5py.Group):
        raise ScanFileError(f"{group.name} has no axis-{index}", where=where, remedy="save it with HyperSpy again")
    said = dict(axis.attrs)
    return Axis(
        name=text(said.get("name")),
        size=source.shape[index],
        step=float(said.get("scale", 0.0)),
        unit=text(said.get("units")),
        scan=bool(said["navigate"]) if "navigate" in said else None,
        where=str(axis.name),
    )


def _state_energy(said: Description, parent: h5py.Group) -> None:
    """HyperSpy's `beam_energy` is in keV. 0 is a value that nobody has set."""
    value = parent.attrs.get("beam_energy")
    if value is not None and float(value) > 0:
        said.state("energy", float(value) * 1e3, f"{parent.name}@beam_energy", f"{float(value):g} keV")
        said.state("radiation", "electron", str(parent.name), "an electron microscope")
