"""Write and read the products of ptychodus 1.7 (HDF5 or npz): positions, probe, object and losses; no patterns."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from ptychostream.errors import ScanFileError
from ptychostream.scans.exports.centres import object_centre, origin_of
from ptychostream.scans.scan import Reconstruction, Scan
from ptychostream.scans.scan_hdf5 import open_hdf5, text, whole
from ptychostream.storage.atomic import atomic_path, cannot_be_written
from ptychostream.storage.hdf5_output import hdf5_output

_ATTRIBUTES = {
    "probe": ("pixel_width_m", "pixel_height_m"),
    "object": ("pixel_width_m", "pixel_height_m", "center_x_m", "center_y_m"),
}
"""What HDF5 keeps as attributes of the array, and npz under `probe_pixel_width_m` and so on."""
_ARRAYS = (
    "probe_position_indexes", "probe_position_x_m", "probe_position_y_m", "probe", "object", "object_layer_spacing_m",
    "loss_epochs", "loss_values",
)  # fmt: skip
_SCALARS = (
    "name", "comments", "detector_object_distance_m", "photon_energy_eV", "probe_photon_count", "exposure_time_s",
    "mass_attenuation_m2_per_kg", "tomography_angle_deg", "focus_object_distance_m", "tilt_angle_deg", "far_field",
)  # fmt: skip
_UNEQUAL = 1e-6


def write_product(path: str | os.PathLike[str], scan: Scan, reconstruction: Reconstruction) -> None:
    """Write a product: npz if the name ends so, else HDF5.

    Σ|probe|² is the number of photons of a pattern, as in ours. ptychodus's own residual scales its patterns by
    (object pixel / detector pixel)²: multiply the probe by detector pixel / object pixel before believing it.

    Raises
    ------
    ScanFileError
        The file cannot be written.
    """
    if scan.radiation != "photon":
        what = f"a scan of {scan.radiation}s, for which ptychodus would compute the wavelength of photons"
        raise ScanFileError(what, where=str(path), remedy="export to another program")
    values = _values(scan, reconstruction)
    try:
        with atomic_path(path) as temporary:
            if Path(path).suffix == ".npz":
                with temporary.open("wb") as stream:
                    np.savez(stream, **values)
            else:
                _write_hdf5(temporary, values)
    except OSError as error:
        raise cannot_be_written(path, error) from error


def read_product(path: str | os.PathLike[str]) -> Reconstruction:
    """Read a product as a reconstruction. The coverage is that of its positions.

    Raises
    ------
    ScanFileError
        It is no product, has several layers or pixels that are not square, or is damaged.
    """
    where = str(path)
    try:
        values = _read_npz(path) if _is_zip(path) else _read_hdf5(path, where)
        return _reconstruction(values, where)
    except (OSError, KeyError, ValueError, TypeError, RuntimeError, IndexError) as error:
        raise ScanFileError(
            f"not a readable product of ptychodus: {error}", where=where, remedy="save it with ptychodus again"
        ) from error


def is_archive(path: str | os.PathLike[str]) -> bool:
    """Whether it is a product that was saved as npz, by the names in it."""
    try:
        if not _is_zip(path):
            return False
        with np.load(path) as archive:
            return {"probe_position_x_m", "object", "probe"} <= set(archive.files)
    except (OSError, ValueError):
        return False


def is_product(file: h5py.File) -> bool:
    """Whether the names of a product are in an open file."""
    return "probe_position_x_m" in file and "object" in file


def _values(scan: Scan, reconstruction: Reconstruction) -> dict[str, Any]:
    power = float((np.abs(reconstruction.probe) ** 2).sum(dtype=np.float64))
    x, y = object_centre(reconstruction)
    size = reconstruction.pixel_m
    return {
        "name": scan.scan_id,
        "comments": f"written by ptychostream, {reconstruction.engine}",
        "detector_object_distance_m": scan.distance_m,
        "photon_energy_eV": scan.energy_ev,
        "probe_photon_count": power,
        "exposure_time_s": 0.0,
        "mass_attenuation_m2_per_kg": 0.0,
        "tomography_angle_deg": 0.0,
        "focus_object_distance_m": 0.0,
        "tilt_angle_deg": 0.0,
        "far_field": True,
        "probe_position_indexes": np.arange(len(scan)),
        "probe_position_x_m": scan.positions_m[:, 0],
        "probe_position_y_m": scan.positions_m[:, 1],
        "probe": reconstruction.probe[None],
        "probe_pixel_width_m": size,
        "probe_pixel_height_m": size,
        "object": reconstruction.object[None],
        "object_pixel_width_m": size,
        "object_pixel_height_m": size,
        "object_center_x_m": x,
        "object_center_y_m": y,
        "object_layer_spacing_m": np.empty(0),
        "loss_epochs": np.arange(1, len(reconstruction.errors) + 1),
        "loss_values": reconstruction.errors,
    }


def _write_hdf5(path: Path, values: dict[str, Any]) -> None:
    with hdf5_output(path) as file:
        for name in _SCALARS:
            file.attrs[name] = values[name]
        for name in _ARRAYS:
            file[name] = values[name]
        for name, attributes in _ATTRIBUTES.items():
            for attribute in attributes:
                file[name].attrs[attribute] = values[f"{name}_{attribute}"]


def _read_hdf5(path: str | os.PathLike[str], where: str) -> dict[str, Any]:
    with open_hdf5(path) as file:
        values: dict[str, Any] = {name: whole(file[name], where) for name in _ARRAYS if name in file}
        values["name"] = text(file.attrs.get("name"))
        for name, attributes in _ATTRIBUTES.items():
            for attribute in attributes:
                if attribute in file[name].attrs:
                    values[f"{name}_{attribute}"] = file[name].attrs[attribute]
    return values


def _read_npz(path: str | os.PathLike[str]) -> dict[str, Any]:
    with np.load(path) as archive:
        return {name: archive[name] for name in archive.files}


def _reconstruction(values: dict[str, Any], where: str) -> Reconstruction:
    image, probe = np.asarray(values["object"]), np.asarray(values["probe"])
    if image.ndim == 3 and len(image) != 1:
        what = f"the object has {len(image)} layers"
        raise ScanFileError(what, where=where, remedy="give a reconstruction of one layer")
    image = image[0] if image.ndim == 3 else image
    probe = probe[0] if probe.ndim == 4 else probe if probe.ndim == 3 else probe[None]
    width, height = float(values["object_pixel_width_m"]), float(values["object_pixel_height_m"])
    if abs(width - height) > _UNEQUAL * width:
        what = f"object pixels of {width:g} × {height:g} m are not square"
        raise ScanFileError(what, where=where, remedy="give a reconstruction with square pixels")
    positions = np.stack([values["probe_position_x_m"], values["probe_position_y_m"]], axis=1).astype(np.float64)
    centre = float(values.get("object_center_x_m", 0.0)), float(values.get("object_center_y_m", 0.0))
    origin = origin_of(centre, width, (image.shape[0], image.shape[1]), (probe.shape[-2], probe.shape[-1]))
    errors = np.asarray(values.get("loss_values", ()), np.float64)
    return Reconstruction(
        object=image.astype(np.complex64),
        probe=probe.astype(np.complex64),
        origin_m=origin,
        pixel_m=width,
        positions_m=positions,
        errors=errors if len(errors) else np.array([np.nan]),
        coverage=_coverage(positions, probe, origin, width, (image.shape[0], image.shape[1])),
        scan_id=str(values.get("name", "")),
        engine="ptychodus",
        provenance={"file": where},
    )


def _coverage(
    positions: NDArray[np.float64],
    probe: NDArray[Any],
    origin: tuple[float, float],
    pixel_m: float,
    shape: tuple[int, int],
) -> NDArray[np.float32]:
    """The probe's intensity summed at every position, to the pixel."""
    power = (np.abs(probe) ** 2).sum(axis=0)
    rows, columns = power.shape
    coverage = np.zeros(shape, np.float64)
    for x, y in np.rint((positions - origin) / pixel_m).astype(int):
        top, left = y - rows // 2, x - columns // 2
        if top < 0 or left < 0 or top + rows > shape[0] or left + columns > shape[1]:
            continue
        coverage[top : top + rows, left : left + columns] += power
    return coverage.astype(np.float32)


def _is_zip(path: str | os.PathLike[str]) -> bool:
    with Path(path).open("rb") as stream:
        return stream.read(4) == b"PK\x03\x04"
