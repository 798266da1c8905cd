"""Write a scan as CXI 1.6: SI units, the default basis, a mask of 0 and 1, the energy in joules a photon.

The energies of CXI are of photons. A scan of electrons has the wavelength in their place, which every program reads
rightly, and `source_1/probe` "electron", NeXus's name of the radiation.
"""

from __future__ import annotations

import os

import h5py
import numpy as np

from ptychostream.imaging.geometry import wavelength_m
from ptychostream.scans.scan import Scan
from ptychostream.statements.units import JOULE_PER_EV
from ptychostream.storage.atomic import atomic_path, cannot_be_written
from ptychostream.storage.hdf5_output import hdf5_output

_VERSION = 160
_INVALID = 1
_BLOCK_BYTES = 64 << 20


def write_cxi(path: str | os.PathLike[str], scan: Scan) -> None:
    """Write `scan` to `path`, atomically.

    Under the default basis the slow axis of the detector is −y and the fast one −x, and the translation is that of the
    sample. So the translation of a position (x, y) of the beam on the canvas is (x, y, 0).

    Raises
    ------
    ScanFileError
        The file cannot be written.
    """
    try:
        with atomic_path(path) as temporary, hdf5_output(temporary) as file:
            _write(file, scan)
    except OSError as error:
        raise cannot_be_written(path, error) from error


def _write(file: h5py.File, scan: Scan) -> None:
    file["cxi_version"] = _VERSION
    entry = file.create_group("entry_1")
    entry["title"] = entry["experiment_identifier"] = scan.scan_id
    instrument = entry.create_group("instrument_1")
    if scan.radiation == "photon":
        _number(instrument, "source_1/energy", scan.energy_ev * JOULE_PER_EV, "J")
        _number(instrument, "beam_1/incident_beam_energy", scan.energy_ev, "eV")
    else:
        instrument["source_1/probe"] = scan.radiation
        _number(instrument, "beam_1/incident_wavelength", wavelength_m(scan.energy_ev, scan.radiation), "m")
    detector = instrument.create_group("detector_1")
    _number(detector, "distance", scan.distance_m, "m")
    for axis in "xy":
        _number(detector, f"{axis}_pixel_size", scan.detector_pixel_m, "m")
    pixel = scan.detector_pixel_m
    detector["basis_vectors"] = np.array([[0.0, -pixel, 0.0], [-pixel, 0.0, 0.0]])
    if scan.bad_pixels is not None:
        detector["mask"] = np.where(scan.bad_pixels, _INVALID, 0).astype(np.uint32)
    translation = np.column_stack([scan.positions_m, np.zeros(len(scan))])
    _number(entry, "sample_1/geometry_1/translation", translation, "m")
    _write_counts(detector, scan)
    data = entry.create_group("data_1")
    data["data"] = h5py.SoftLink("/entry_1/instrument_1/detector_1/data")
    data["translation"] = h5py.SoftLink("/entry_1/sample_1/geometry_1/translation")


def _write_counts(detector: h5py.Group, scan: Scan) -> None:
    shape, dtype = scan.counts.shape, scan.counts.dtype
    stored = detector.create_dataset(
        "data", shape, dtype, chunks=(1, *shape[1:]), compression="gzip", compression_opts=1
    )
    step = max(1, _BLOCK_BYTES // (dtype.itemsize * shape[1] * shape[2]))
    for start in range(0, shape[0], step):
        stored[start : start + step] = scan.counts[start : start + step]


def _number(parent: h5py.Group, name: str, value: object, unit: str) -> None:
    parent[name] = value
    parent[name].attrs["units"] = unit
