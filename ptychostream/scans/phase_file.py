"""Files of stitched phase images: HDF5 for NeXus viewers, written atomically."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from ptychostream.errors import ScanFileError
from ptychostream.imaging.phase_image import PhaseImage
from ptychostream.imaging.sigma import PhaseSigma
from ptychostream.storage.atomic import atomic_new_file, atomic_path, cannot_be_written
from ptychostream.storage.hdf5_heaps import open_checked
from ptychostream.storage.hdf5_output import hdf5_output

KIND = "ptychostream phase image"
_SIGMA = "phase_errors"
_LONGEST_STEM = (
    180  # bytes; file systems allow 255, and a number, a suffix and the prefix of a temporary file are added
)


def write_phase_image(
    path: str | os.PathLike[str],
    image: PhaseImage,
    provenance: Mapping[str, Any] | None = None,
    sigma: PhaseSigma | None = None,
) -> None:
    """Write `image`: `/entry/data` (NXdata) has `phase` (rad), `weight`, and the axes `y` and `x` (m).

    `provenance`, plain values by name, is stored as JSON in `/entry/provenance`. `sigma`, the error of the phase, is
    stored as `phase_errors` (rad), where NeXus viewers look for it, with its kind and calibration as attributes.

    Raises
    ------
    ScanFileError
        The file cannot be written; nothing is left behind.
    """
    try:
        with atomic_path(path) as temporary, hdf5_output(temporary) as file:
            _write(file, image, dict(provenance or {}), sigma)
    except OSError as error:
        raise cannot_be_written(path, error) from error


def save_phase_image(
    folder: str | os.PathLike[str],
    name: str,
    image: PhaseImage,
    provenance: Mapping[str, Any] | None = None,
    sigma: PhaseSigma | None = None,
) -> Path:
    """Write `image` like `write_phase_image`, to a new file with a name made from `name`. Returns its path.

    No file is replaced: if the name exists, a number is added to it.

    Raises
    ------
    ScanFileError
        The file cannot be written; nothing is left behind.
    """
    path = Path(folder) / f"{file_stem(name)}.h5"
    try:
        with atomic_new_file(path) as new, hdf5_output(new.temporary) as file:
            _write(file, image, dict(provenance or {}), sigma)
        return new.path
    except OSError as error:
        raise cannot_be_written(path, error) from error


def file_stem(name: str) -> str:
    """Make a file name of a text: letters, digits and . _ + - stay, other characters become _.

    The name is never empty, and never that of a hidden file.

    >>> file_stem("../scan 247/α")
    'scan_247_α'
    """
    safe = re.sub(r"[^\w.+-]+", "_", name).lstrip("._-").rstrip("._")
    while len(safe.encode()) > _LONGEST_STEM:
        safe = safe[:-1]
    return safe or "scan"


def _write(file: h5py.File, image: PhaseImage, provenance: dict[str, Any], sigma: PhaseSigma | None) -> None:
    file.attrs.update({"file_kind": KIND, "default": "entry"})
    entry = file.create_group("entry")
    entry.attrs.update({"NX_class": "NXentry", "default": "data"})
    entry.create_dataset("provenance", data=json.dumps(provenance))
    data = entry.create_group("data")
    data.attrs.update({"NX_class": "NXdata", "signal": "phase", "axes": ["y", "x"]})
    data.create_dataset("phase", data=image.phase).attrs["units"] = "rad"
    data.create_dataset("weight", data=image.weight)
    if sigma is not None:
        errors = data.create_dataset(_SIGMA, data=sigma.values)
        errors.attrs.update({"units": "rad", "kind": sigma.kind, "factor": sigma.factor, "floor_rad": sigma.floor_rad})
    for axis, name in enumerate(("y", "x")):
        values = image.origin_m[1 - axis] + image.pixel_m * np.arange(image.phase.shape[axis])
        data.create_dataset(name, data=values).attrs["units"] = "m"
    data.attrs["pixel_m"] = image.pixel_m
    data.attrs["origin_m"] = image.origin_m


def read_phase_image(path: str | os.PathLike[str]) -> PhaseImage:
    """Read a file of `write_phase_image`.

    Raises
    ------
    ScanFileError
        The file is missing, damaged or no phase image.
    """
    with _opened(path) as file:
        data = file["entry/data"]
        x, y = (float(value) for value in data.attrs["origin_m"])
        return PhaseImage(data["phase"][()], data["weight"][()], (x, y), float(data.attrs["pixel_m"]))


def read_phase_sigma(path: str | os.PathLike[str]) -> PhaseSigma | None:
    """Read the error of a file of `write_phase_image`; None where it has none.

    Raises
    ------
    ScanFileError
        The file is missing, damaged or no phase image.
    """
    with _opened(path) as file:
        errors = file["entry/data"].get(_SIGMA)
        if errors is None:
            return None
        told = errors.attrs
        return PhaseSigma(errors[()], str(told["kind"]), float(told["factor"]), float(told["floor_rad"]))


def read_provenance(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read the provenance that `write_phase_image` stored.

    Raises
    ------
    ScanFileError
        The file is missing, damaged or no phase image.
    """
    with _opened(path) as file:
        provenance: dict[str, Any] = json.loads(file["entry/provenance"][()])
        return provenance


@contextmanager
def _opened(path: str | os.PathLike[str]) -> Iterator[h5py.File]:
    """The open file, checked. Errors of reading become ScanFileError."""
    if not Path(path).is_file():
        raise ScanFileError("there is no such file", where=str(path), remedy="give a file that exists")
    try:
        with open_checked(path) as file:
            if file.attrs.get("file_kind") != KIND:
                raise ScanFileError(
                    "HDF5, but not a phase image", where=str(path), remedy="give a file that `infer` wrote"
                )
            yield file
    except (OSError, KeyError, ValueError, RuntimeError) as error:
        raise ScanFileError(f"not a readable phase image: {error}", where=str(path), remedy="write it again") from error
