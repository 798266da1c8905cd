"""Read the master files of DECTRIS detectors (EIGER, PILATUS4, SELUN, ARINA, QUADRO, ELA, SINGLA).

The frames are in other files, behind the links `/entry/data/data_000001`, `data_000002` … Positions are not in the
file: they come from a route, from another data set (`--x-name`, `--y-name`), or from the shape and step of the scan.
"""

from __future__ import annotations

import re
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from ptychostream.errors import ScanFileError
from ptychostream.scans.hdf5_mask import read_mask
from ptychostream.scans.hdf5_statements import state_number
from ptychostream.scans.layouts.choosing import BOTH, chosen_frames
from ptychostream.scans.layouts.columns import read_places
from ptychostream.scans.layouts.links import at, broken, missing_link
from ptychostream.scans.layouts.region import state_pixel, state_region
from ptychostream.scans.layouts.stacks import JoinedFrames
from ptychostream.scans.scan_hdf5 import checked_dataset, group, number, text
from ptychostream.scans.scan_parts import ScanOptions, ScanParts
from ptychostream.statements.description import Description

DATA = ("entry/data/data_000001",)
_NAME = re.compile(r"data_\d{6}")
_DETECTOR = "entry/instrument/detector"
_SPECIFIC = f"{_DETECTOR}/detectorSpecific"
_ELECTRON_DETECTORS = ("arina", "quadro", "singla", "ela")
BAD_BITS = {
    0: "gap without sensor",
    1: "dead",
    2: "responds too little",
    3: "responds too much",
    4: "noisy",
    6: "in a cluster of bad pixels",
    8: "masked by the user",
    31: "virtual, interpolated",
}
"""The bits of a pixel mask that leave the pixel out (NXdetector, `pixel_mask`). The other bits have no meaning yet."""


def matches(file: h5py.File) -> bool:
    """Whether the file has the numbered links of a master."""
    data = file.get("entry/data")
    return isinstance(data, h5py.Group) and any(_NAME.fullmatch(str(name)) for name in data)


def read_parts(file: h5py.File, options: ScanOptions, where: str) -> ScanParts:
    """Read the layout. The counts stay on disk. Raises ScanFileError."""
    sources = _sources(file, where)
    numbers = _image_numbers(sources, where)
    joined: Any = JoinedFrames(sources) if len(sources) > 1 else sources[0]
    said = _statements(file, joined, sources, where)
    positions = read_places(file, options, said, where)
    counts = chosen_frames(
        joined,
        where,
        name="/entry/data/data_…",
        pick=dict(options.pick),
        raster=options.scan_shape,
        places=None if positions is None else len(positions),
        transpose=options.transpose,
    )
    return ScanParts(
        obeys=BOTH,
        counts=counts,
        raw_positions=positions,
        said=said,
        bad_pixels=_bad_pixels(file, where),
        frame_ids=numbers if numbers is not None and len(numbers) == len(counts) else None,
    )


def _sources(file: h5py.File, where: str) -> list[h5py.Dataset]:
    data = file["entry/data"]
    found = []
    for name in sorted(str(name) for name in data if _NAME.fullmatch(str(name))):
        if target := broken(data, name):
            raise missing_link(data, name, target, where)
        source = data[name]
        if not isinstance(source, h5py.Dataset):
            what = f"/entry/data/{name} leads to no data set"
            raise ScanFileError(what, where=where, remedy="copy the data files again")
        found.append(checked_dataset(source, where))
    kinds = [(one.shape[1:], one.dtype) for one in found]
    unlike = next((one for one, kind in zip(found, kinds, strict=True) if kind != kinds[0]), None)
    if unlike is not None:
        raise ScanFileError(
            f"{unlike.file.filename} has frames of {unlike.dtype} {unlike.shape[1:]}, "
            f"{found[0].file.filename} of {found[0].dtype} {found[0].shape[1:]}",
            where=where,
            remedy="they are files of different acquisitions; copy those of this one",
        )
    return found


def _image_numbers(sources: list[h5py.Dataset], where: str) -> NDArray[np.int64] | None:
    """The numbers of the images as the data files give them (they begin with 1), or None."""
    numbers: list[NDArray[np.int64]] = []
    for source in sources:
        low, high = source.attrs.get("image_nr_low"), source.attrs.get("image_nr_high")
        if low is None or high is None:
            return None
        first, last = int(np.ravel(low)[0]), int(np.ravel(high)[0])
        if last - first + 1 != len(source) or (numbers and first != numbers[-1][-1] + 1):
            before = f" after image {numbers[-1][-1]}" if numbers else ""
            raise ScanFileError(
                f"{source.file.filename} says that it holds images {first} to {last}{before}, and it holds "
                f"{len(source)} images",
                where=where,
                remedy="a data file is missing, cut short, or of another acquisition; copy the data files again",
            )
        numbers.append(np.arange(first, last + 1, dtype=np.int64))
    return np.concatenate(numbers)


def _statements(file: h5py.File, frames: Any, sources: list[h5py.Dataset], where: str) -> Description:
    detector, specific, beam = (group(file, path) for path in (_DETECTOR, _SPECIFIC, "entry/instrument/beam"))
    said = Description(where)
    words = re.split(r"[^a-z]+", text(detector.get("description")).lower())
    electrons = any(name in words for name in _ELECTRON_DETECTORS)
    if electrons:
        said.state("radiation", "electron", f"/{_DETECTOR}/description", text(detector.get("description")))
    for quantity, parent, name, unit in (
        ("energy", beam, "incident_energy", "eV"),
        ("energy", specific, "incident_energy", "eV"),
        *((("energy", specific, "photon_energy", "eV"),) if electrons else ()),
        ("distance", detector, "detector_distance", "m"),
        ("distance", detector, "distance", "m"),
        ("bit_depth", detector, "bit_depth_image", ""),
        ("saturation", specific, "countrate_correction_count_cutoff", ""),
        ("saturation", detector, "saturation_value", ""),
    ):
        if number(parent.get(name)):  # 0 is what the detector writes for a value that nobody has set
            state_number(said, quantity, parent.get(name), unit, where=where)
    if not electrons:
        for parent in (beam, detector):
            for name in ("incident_wavelength", "wavelength"):
                if number(parent.get(name)):
                    state_number(said, "wavelength", parent.get(name), "angstrom", where=where)
    for source in sources:
        state_region(said, source, {}, "", where)
    state_pixel(said, detector, where)
    said.state("pixel_type", str(frames.dtype), "/entry/data/data_000001")
    return said


def _bad_pixels(file: h5py.File, where: str) -> NDArray[np.bool_] | None:
    found = None
    for path in (f"{_SPECIFIC}/pixel_mask", f"{_DETECTOR}/pixel_mask"):
        mask = read_mask(at(file, path), where, [1 << bit for bit in BAD_BITS])
        if found is not None and mask is not None and mask.shape == found.shape:
            mask = mask | found
        found = mask if found is None else found if mask is None else mask
    return found
