"""Read the layout of the Coherent X-ray Imaging data bank (CXI, Maia 2012, Nat. Methods 9, 854).

The reader takes `/entry_1/data_1/data` and `translation` (metres, the first two columns are x and y). If these are not
linked, it takes `/entry_1/instrument_1/detector_1/data` and `/entry_1/sample_1/geometry_1/translation`. It also takes
`source_1/energy` (J) and `distance`, `x_pixel_size` and `mask` of `detector_1/`. A translation may be that of the
sample or that of the beam, depending on the program that wrote the file. It is read as the beam's position;
`ScanOptions.axes` can change its sign.
"""

from __future__ import annotations

import h5py
import numpy as np
from numpy.typing import NDArray

from ptychostream.errors import ScanFileError
from ptychostream.scans.scan_hdf5 import JOULE_PER_EV, checked_dataset, group, in_unit, number, text, unit_of, whole
from ptychostream.scans.scan_parts import ScanOptions, ScanParts

DATA = ("entry_1/data_1/data", "entry_1/instrument_1/detector_1/data", "entry_1/image_1/data")
TRANSLATION = (
    "entry_1/data_1/translation",
    "entry_1/sample_1/geometry_1/translation",
    "entry_1/instrument_1/detector_1/translation",
)
# Flags of an unusable pixel: invalid, saturated, hot, dead, shadowed, to be ignored, bad, out of resolution, missing,
# noisy, failed correction. The other flags only describe the pixel.
_BAD_BITS = 1 | 2 | 4 | 8 | 16 | 64 | 128 | 256 | 512 | 1024 | 4096
_LARGEST_PHOTON_EV = 1e9


def matches(file: h5py.File) -> bool:
    """Whether this file has patterns at the place that CXI prescribes."""
    return any(isinstance(file.get(path), h5py.Dataset) for path in DATA)


def read_parts(file: h5py.File, options: ScanOptions, where: str) -> ScanParts:
    """Read the layout. The counts stay on disk. Raises ScanFileError."""
    path = next(path for path in DATA if isinstance(file.get(path), h5py.Dataset))
    counts = checked_dataset(file[path], where)
    detector = group(file, "entry_1/instrument_1/detector_1")
    positions, unit_m = (None, None) if options.route is not None else _positions(file, where)
    mask = detector.get("mask")
    shifted = (file.get(f"{path.rsplit('/', 1)[0]}/is_fft_shifted"), detector.get("is_fft_shifted"))
    return ScanParts(
        scan_id=text(file.get("entry_1/experiment_identifier")) or text(file.get("entry_1/title")),
        counts=counts,
        raw_positions=positions,
        unit_m=unit_m,
        energy_ev=options.energy_ev or _energy_ev(file, where),
        distance_m=in_unit(detector.get("distance"), "m", where),
        detector_pixel_m=in_unit(detector.get("x_pixel_size"), "m", where),
        bad_pixels=None if mask is None else (_frame_mask(mask, where) & _BAD_BITS) != 0,
        corner=any(number(flag) == 1 for flag in shifted),
    )


def _positions(file: h5py.File, where: str) -> tuple[NDArray[np.float64], float]:
    for path in TRANSLATION:
        dataset = file.get(path)
        if isinstance(dataset, h5py.Dataset) and dataset.ndim == 2 and dataset.shape[1] >= 2:
            return whole(dataset, where, "iuf")[:, :2].astype(np.float64), unit_of(dataset, where) or 1.0
    raise ScanFileError(
        f"CXI without positions: no [N, 2 or 3] array at /{', /'.join(TRANSLATION)}",
        where=where,
        remedy="write the translations with the patterns, or give a route file (--route)",
    )


def _energy_ev(file: h5py.File, where: str) -> float | None:
    dataset = file.get("entry_1/instrument_1/source_1/energy")
    energy = in_unit(dataset, "J", where)
    if energy is not None and energy > _LARGEST_PHOTON_EV:
        raise ScanFileError(
            f"the source's energy is {energy * JOULE_PER_EV:g} J, which is impossible for a photon",
            where=where,
            remedy="in CXI the energy is in joules; give it with --energy-ev",
        )
    return energy


def _frame_mask(mask: h5py.Dataset, where: str) -> NDArray[np.int64]:
    """[H, W] flags. A leading axis of 1 is removed."""
    flags = whole(mask, where, "biu").astype(np.int64)
    return flags[0] if flags.ndim == 3 and len(flags) == 1 else flags
