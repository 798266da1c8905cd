"""A stitched phase image on disk: HDF5 as NeXus viewers show it, written atomically."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from ptychostream.atomic import atomic_path, cannot_be_written
from ptychostream.errors import ScanFileError
from ptychostream.hdf5_output import hdf5_output
from ptychostream.phase_image import PhaseImage

KIND = "ptychostream phase image"


def write_phase_image(
    path: str | os.PathLike[str], image: PhaseImage, provenance: Mapping[str, Any] | None = None
) -> None:
    """Write `image`: `/entry/data` (NXdata) holds `phase` (rad), `weight`, and the axes `y` and `x` (m).

    `provenance`, plain values by name, is kept as JSON in `/entry/provenance`.

    Raises
    ------
    ScanFileError
        The file cannot be written; nothing is left behind.
    """
    try:
        with atomic_path(path) as temporary, hdf5_output(temporary) as file:
            _write(file, image, dict(provenance or {}))
    except OSError as error:
        raise cannot_be_written(path, error) from error


def _write(file: h5py.File, image: PhaseImage, provenance: dict[str, Any]) -> None:
    file.attrs.update({"file_kind": KIND, "default": "entry"})
    entry = file.create_group("entry")
    entry.attrs.update({"NX_class": "NXentry", "default": "data"})
    entry.create_dataset("provenance", data=json.dumps(provenance))
    data = entry.create_group("data")
    data.attrs.update({"NX_class": "NXdata", "signal": "phase", "axes": ["y", "x"]})
    data.create_dataset("phase", data=image.phase).attrs["units"] = "rad"
    data.create_dataset("weight", data=image.weight)
    for axis, name in enumerate(("y", "x")):
        values = image.origin_m[1 - axis] + image.pixel_m * np.arange(image.phase.shape[axis])
        data.create_dataset(name, data=values).attrs["units"] = "m"
    data.attrs["pixel_m"] = image.pixel_m
    data.attrs["origin_m"] = image.origin_m


def read_phase_image(path: str | os.PathLike[str]) -> PhaseImage:
    """Read what `write_phase_image` wrote.

    Raises
    ------
    ScanFileError
        The file is missing, damaged or of another kind.
    """
    if not Path(path).is_file():
        raise ScanFileError("there is no such file", where=str(path), remedy="give a file that exists")
    try:
        with h5py.File(path, "r") as file:
            if file.attrs.get("file_kind") != KIND:
                raise ScanFileError("HDF5, but not a phase image", where=str(path), remedy="give what `infer` wrote")
            data = file["entry/data"]
            x, y = (float(value) for value in data.attrs["origin_m"])
            return PhaseImage(data["phase"][()], data["weight"][()], (x, y), float(data.attrs["pixel_m"]))
    except (OSError, KeyError, ValueError, RuntimeError) as error:
        raise ScanFileError(f"not a readable phase image: {error}", where=str(path), remedy="write it again") from error
