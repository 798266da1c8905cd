"""Read the layout of the Coherent X-ray Imaging data bank (CXI, Maia 2012, Nat. Methods 9, 854) and NXcxi_ptycho.

Patterns: `/entry_1/data_1/data`, or `/entry_1/instrument_1/detector_1/data`. Positions: `translation`, which by the
format is that of the sample (see `cxi_positions`). Energy: `beam_1/incident_beam_energy` is the photon's;
`source_1/energy` is the photon's in CXI, in joules, and the storage ring's in NXcxi_ptycho. `source_1/probe`, where it
stands, names the radiation as in NeXus.
"""

from __future__ import annotations

import h5py

from ptychostream.scans.hdf5_mask import read_mask
from ptychostream.scans.hdf5_statements import state_number, state_radiation
from ptychostream.scans.layouts import generic
from ptychostream.scans.layouts.cxi_positions import CxiPaths, cxi_paths, read_positions
from ptychostream.scans.layouts.links import at, refuse_broken
from ptychostream.scans.layouts.region import state_pixel, state_region
from ptychostream.scans.layouts.rivals import cxi_patterns
from ptychostream.scans.scan_hdf5 import checked_dataset, group, number, text
from ptychostream.scans.scan_parts import ScanOptions, ScanParts
from ptychostream.statements.description import Description
from ptychostream.statements.units import is_unit

DATA = ("entry_1/data_1/data", "entry_1/instrument_1/detector_1/data", "entry_1/image_1/data")
BAD_BITS = {
    0x1: "invalid", 0x2: "saturated", 0x4: "hot", 0x8: "dead", 0x10: "shadowed", 0x40: "to be ignored", 0x80: "bad",
    0x200: "missing", 0x400: "noisy",
}  # fmt: skip
"""Bits of a CXI mask that mark a defect. The others describe the pixel: 0x1000 that it has signal, for instance."""
_ENERGIES = ("beam_1/incident_beam_energy", "beam_1/incident_energy", "beam_1/energy")
_WAVELENGTHS = ("beam_1/incident_wavelength", "source_1/wavelength", "beam_1/wavelength")
_SOURCE = "source_1/energy"
_RADIATION = "source_1/probe"
"""NXsource's name of the radiation; CXI itself knows photons alone."""
_RING_EV = (1e8, 1e12)
"""Energies of the electrons in a storage ring or linac."""


def matches(file: h5py.File) -> bool:
    """Whether this file has patterns at the place that CXI prescribes."""
    return any(isinstance(at(file, path), h5py.Dataset) for path in DATA)


def read_parts(file: h5py.File, options: ScanOptions, where: str) -> ScanParts:
    """Read the layout. The counts stay on disk. Raises ScanFileError."""
    parts = cxi_paths(options.data) if options.data is not None else cxi_paths(cxi_patterns(file, DATA, where))
    if parts is None or not isinstance(at(file, parts.patterns), h5py.Dataset):
        return generic.read_parts(file, options, where)
    counts = checked_dataset(file[parts.patterns], where)
    said = Description(where)
    detector = group(file, parts.detector)
    positions = None if options.route is not None else read_positions(file, parts, said, where)
    refuse_broken(file, _paths(parts, options), where)
    _state_energy(said, file, parts.instrument, where)
    state_radiation(said, at(file, f"{parts.instrument}/{_RADIATION}"))
    state_number(said, "distance", at(file, f"{parts.detector}/distance"), "m", where=where)
    state_region(said, counts, {}, "", where)
    state_pixel(said, detector, where)
    for flag in (at(file, f"{parts.data}/is_fft_shifted"), detector.get("is_fft_shifted")):
        if flag is not None and number(flag) is not None:
            said.state("zero_frequency", "corner" if number(flag) == 1 else "centre", str(flag.name))
    for name in (f"{parts.entry}/experiment_identifier", f"{parts.entry}/title"):
        if not said.about("scan_id"):
            named = text(at(file, name)).strip()
            said.state("scan_id", named if is_unit(named) else None, f"/{name}")
    return ScanParts(
        counts=counts,
        raw_positions=positions,
        said=said,
        bad_pixels=read_mask(detector.get("mask"), where, BAD_BITS),
    )


def _paths(parts: CxiPaths, options: ScanOptions) -> list[str]:
    """The places that are read, but for those that an option replaces."""
    names = ["mask", "is_fft_shifted"]
    names += ["distance"] if options.distance_m is None else []
    names += ["x_pixel_size", "y_pixel_size"] if options.detector_pixel_m is None else []
    names += ["basis_vectors"] if options.route is None else []
    paths = [f"{parts.detector}/{name}" for name in names]
    energies = (*_ENERGIES, *_WAVELENGTHS, _SOURCE) if options.energy_ev is None else ()
    return paths + [f"{parts.instrument}/{path}" for path in energies]


def _state_energy(said: Description, file: h5py.File, instrument: str, where: str) -> None:
    """Add the energies. The energy of a storage ring is told apart by its size."""
    for path in _ENERGIES:
        state_number(said, "energy", at(file, f"{instrument}/{path}"), "eV", where=where)
    for path in _WAVELENGTHS:
        state_number(said, "wavelength", at(file, f"{instrument}/{path}"), "m", where=where)
    source = Description(where)
    state_number(source, "energy", at(file, f"{instrument}/{_SOURCE}"), "J", where=where)
    for statement in source:
        if not _RING_EV[0] <= float(statement.value) <= _RING_EV[1]:
            said.add(statement)
