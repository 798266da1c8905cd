"""Write the pair of files of pty-chi, `NAME_dp.hdf5` and `NAME_para.hdf5` (see `layouts.ptychi_pair`)."""

from __future__ import annotations

import os
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray

from ptychostream.errors import ScanFileError
from ptychostream.imaging.geometry import object_pixel_m
from ptychostream.scans.exports.centres import object_centre, surround
from ptychostream.scans.scan import Reconstruction, Scan
from ptychostream.storage.atomic import atomic_path, cannot_be_written
from ptychostream.storage.hdf5_output import hdf5_output

_BLOCK_BYTES = 64 << 20


def pair_of(path: Path) -> tuple[Path, Path]:
    """The two files for an output `path`: its `_dp`, `_para` and suffix are left out of the name."""
    stem = path.name.removesuffix(path.suffix).removesuffix("_dp").removesuffix("_para")
    return path.with_name(f"{stem}_dp.hdf5"), path.with_name(f"{stem}_para.hdf5")


def write_pair(path: str | os.PathLike[str], scan: Scan, reconstruction: Reconstruction | None = None) -> list[Path]:
    """Write the patterns, and the positions with the probe and the object. Returns the two paths.

    The probe is divided by √(h · w), because pty-chi's Fourier transform is not normalised. Without a reconstruction
    the object is 1 everywhere and the probe that of the scan. The pair knows no mask: bad pixels are 0 in the patterns,
    and `valid_pixel_mask` (True is good) is written beside the probe.

    Raises
    ------
    ScanFileError
        The patterns have an odd size, there is no probe, or a file cannot be written.
    """
    height, width = scan.counts.shape[1:]
    if height % 2 or width % 2:
        raise ScanFileError(
            f"patterns of {height} × {width}: pty-chi shifts odd sizes by one pixel, which tilts the object",
            where=str(path),
            remedy="crop the patterns to an even size, or export to another program",
        )
    probe = scan.probe if reconstruction is None else reconstruction.probe
    if probe is None:
        raise ScanFileError(
            "there is no probe to write", where=str(path), remedy="give a reconstruction with --reconstruction"
        )
    dp, para = pair_of(Path(path))
    try:
        with atomic_path(dp) as patterns, atomic_path(para) as parameters:
            with hdf5_output(patterns) as file:
                _write_patterns(file, scan)
            with hdf5_output(parameters) as file:
                _write_parameters(file, scan, probe, reconstruction)
    except OSError as error:
        raise cannot_be_written(path, error) from error
    return [dp, para]


def _write_patterns(file: h5py.File, scan: Scan) -> None:
    shape = scan.counts.shape
    stored = file.create_dataset(
        "dp", shape, np.float32, chunks=(1, *shape[1:]), compression="gzip", compression_opts=1
    )
    step = max(1, _BLOCK_BYTES // (4 * shape[1] * shape[2]))
    for start in range(0, shape[0], step):
        block = scan.counts[start : start + step].astype(np.float32)
        if scan.bad_pixels is not None:
            block[:, scan.bad_pixels] = 0
        stored[start : start + step] = block


def _write_parameters(
    file: h5py.File, scan: Scan, probe: NDArray[np.complex64], reconstruction: Reconstruction | None
) -> None:
    height, width = probe.shape[-2:]
    if reconstruction is None:
        pixel = object_pixel_m(
            scan.energy_ev, scan.distance_m, scan.detector_pixel_m, scan.counts.shape[2], scan.radiation
        )
        shape, origin = surround(scan.positions_m, pixel, (height, width))
        image = np.ones(shape, np.complex64)
        none = np.empty(0)
        reconstruction = Reconstruction(image, probe, origin, pixel, scan.positions_m, none, image.real)
    centre = object_centre(reconstruction)
    file["probe_position_indexes"] = np.arange(len(scan))
    file["probe_position_x_m"], file["probe_position_y_m"] = scan.positions_m.T
    file["probe"] = (probe / np.sqrt(height * width)).astype(np.complex64)[None]
    file["object"] = reconstruction.object[None]
    for name in ("object", "probe"):
        file[name].attrs["pixel_width_m"] = file[name].attrs["pixel_height_m"] = reconstruction.pixel_m
    file["object"].attrs["center_x_m"], file["object"].attrs["center_y_m"] = centre
    if scan.bad_pixels is not None:
        file["valid_pixel_mask"] = ~scan.bad_pixels
