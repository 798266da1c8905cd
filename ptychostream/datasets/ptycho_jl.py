"""The 4D-STEM scan that comes with Ptycho.jl: electrons of 300 kV on a biological sample, 93 electrons per Å².

Voltage, object pixel and step are those of its authors' example. Their scan angle is -126° in axes of their own; in
ours the positions turn by +126°: reconstructions explain 0.072 of the patterns' variation by it, and at most 0.009 by
eleven other angles and mirrors (docs/how-to/reconstruct.md). Their defocus is -13.5 µm.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ptychostream.datasets.dataset import Dataset
from ptychostream.datasets.web_archive import WebArchive
from ptychostream.positions.positions import AxisConfig
from ptychostream.scans.scan_files import open_scan
from ptychostream.scans.scan_parts import ScanOptions
from ptychostream.scans.scan_writer import write_scan

_COMMIT = "5ffb9f3a762c9760a87c9b2b211edc4778e88922"
OPTIONS = ScanOptions(
    scan_shape=(127, 127),
    scan_step_m=(31.25e-10, 31.25e-10),
    axes=AxisConfig(rotation_deg=126.0),
    energy_ev=300e3,
    radiation="electron",
    object_pixel_m=4.65e-10,
)
"""What the files do not say."""


def make(source: Path, target: Path, metadata: dict[str, Any]) -> None:
    """Convert the folder of MATLAB files, one pattern each. Raises ScanFileError."""
    with open_scan(source, OPTIONS) as scan:
        scan.scan_id = str(metadata["dataset"])
        scan.metadata = {**scan.metadata, **metadata}
        write_scan(target, scan)


PTYCHO_JL = Dataset(
    name="ptycho-jl",
    title="4D-STEM scan of Ptycho.jl, 300 kV electrons: 127×127 patterns of 256×256, by Xiaopeng Wu and Yu Lei",
    licence="MIT, Copyright (c) 2023 Xiaopeng Wu, Yu Lei",
    source=f"https://github.com/SeanXPWu/Ptycho.jl, commit {_COMMIT[:8]}, test_data",
    origin=WebArchive(
        url=f"https://codeload.github.com/SeanXPWu/Ptycho.jl/tar.gz/{_COMMIT}",
        megabytes=261,
        folder="test_data",
        pattern=r"dp_\d{1,5}\.mat",
        files=127 * 127,
        checksum="7c1c08a7c9e7907b8a45117471fc67880a8d630e9d6954e43b80c3caf6621fda",
    ),
    make=make,
)
