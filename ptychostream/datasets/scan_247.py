"""Scan 247 of 26-ID, Advanced Photon Source: the scan that the demo shows and the benchmarks learn from."""

from __future__ import annotations

import bz2
import pickle
from pathlib import Path
from typing import Any

import numpy as np

from ptychostream.datasets.dataset import Dataset
from ptychostream.datasets.pip_archive import PipArchive
from ptychostream.datasets.safe_pickle import load_arrays
from ptychostream.errors import DatasetError
from ptychostream.imaging.geometry import object_pixel_m
from ptychostream.scans.scan import Scan
from ptychostream.scans.scan_writer import write_scan

_FRAMES, _SIDE = 481, 128


def make(source: Path, target: Path, metadata: dict[str, Any]) -> None:
    """Convert the pickle: [patterns, nominal positions, true positions, probe].

    The patterns have the zero frequency at the corner. The positions are the (row, column) of each patch's first pixel
    in object pixels. They are converted to metres from the middle of the field, because their origin is arbitrary. A
    pixel that is zero in every frame is dead. The probe's three modes are equal, so only the first is taken.

    Raises
    ------
    DatasetError
        The contents are not these arrays.
    """
    try:
        patterns, nominal, true, probe = load_arrays(bz2.decompress(source.read_bytes()))
        shapes = (patterns.shape, nominal.shape, true.shape, probe.shape)
    except (pickle.UnpicklingError, OSError, ValueError, AttributeError) as error:
        raise DatasetError(
            f"not the expected arrays: {error}", where=source.name, remedy="fetch the dataset again"
        ) from error
    if shapes != ((_FRAMES, _SIDE, _SIDE), (_FRAMES, 2), (_FRAMES, 2), (1, 1, 3, _SIDE, _SIDE)):
        raise DatasetError(f"arrays of shapes {shapes}", where=source.name, remedy="fetch the dataset again")
    energy_ev, distance_m, detector_pixel_m = 10_000.0, 0.900, 55e-6
    pixel_m = object_pixel_m(energy_ev, distance_m, detector_pixel_m, _SIDE)
    middle = (true.min(axis=0).astype(np.float64) + true.max(axis=0)) / 2
    positions, nominal_m = (((pairs - middle) * pixel_m)[:, ::-1] for pairs in (true, nominal))
    counts = np.fft.fftshift(patterns, axes=(1, 2))
    scan = Scan(
        scan_id=str(metadata["dataset"]),
        counts=counts,
        positions_m=np.ascontiguousarray(positions),
        energy_ev=energy_ev,
        distance_m=distance_m,
        detector_pixel_m=detector_pixel_m,
        bad_pixels=np.logical_not(counts.any(axis=0)),
        probe=probe[0, 0, :1].astype(np.complex64),
        metadata=metadata,
    )
    write_scan(target, scan, extra={"positions_nominal_m": np.ascontiguousarray(nominal_m)})


SCAN_247 = Dataset(
    name="26id-247",
    title="Scan 247 of the Hard X-ray Nanoprobe, 26-ID, Advanced Photon Source: 481 patterns of 128×128, "
    "measured by Tao Zhou, Center for Nanoscale Materials, Argonne National Laboratory",
    licence="BSD-3-Clause, Copyright (c) 2018, UChicago Argonne, LLC. All rights reserved.",
    source="tike 0.26.0, tests/data/position-error-247.pickle.bz2, https://github.com/AdvancedPhotonSource/tike",
    origin=PipArchive(
        requirement="tike==0.26.0",
        archive_sha256="e6a89bfb8e62ff77e01ca2cef4384898b1208f541652a5449dc0c61781006a19",
        megabytes=26,
        member="tike-0.26.0/tests/data/position-error-247.pickle.bz2",
        checksum="e3f8b607de5e7c712eb50744a0e03f814f9f3aec52aa5f0295b9537d561c84b9",
    ),
    make=make,
)
