"""Small scans in files: whole ones, and one that crashes libhdf5."""

from __future__ import annotations

import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from fuzz import scan_file

from ptychostream.hpc_agent.scans.collect import CollectSettings
from ptychostream.scans.scan import Scan
from ptychostream.scans.scan_writer import write_scan

FRAMES, SIZE = 12, 16
QUICK = CollectSettings(timeout_s=0.6, quiet_s=0.1, poll_s=0.05)
PATIENT = CollectSettings(timeout_s=40, quiet_s=0.3, poll_s=0.05)


def a_scan(counts: np.ndarray[Any, Any] | None = None, scan_id: str = "s1") -> Scan:
    random = np.random.default_rng(1)
    if counts is None:
        counts = random.poisson(5, (FRAMES, SIZE, SIZE)).astype(np.uint16)
    return Scan(scan_id, counts, random.normal(0, 1e-6, (len(counts), 2)), 1e4, 1.0, 1e-4)


def a_file(folder: Path, **scan: Any) -> Path:
    path = folder / "scan.h5"
    write_scan(path, a_scan(**scan))
    return path


def names_in(data: bytearray, heap: int) -> int:
    """Where the names of a group's local heap lie."""
    return int(struct.unpack_from("<Q", data, heap + 24)[0])


def crashing(folder: Path, group: bytes = b"distance") -> Path:
    """A file of two groups whose names lie in one place: libhdf5 2.0.0 dies of it (SIGSEGV)."""
    path = folder / "crashing.h5"
    with h5py.File(path, "w") as file:
        scan_file.nexus(file)
    data = bytearray(path.read_bytes())
    heaps = [at for at in range(0, len(data), 8) if data[at : at + 4] == b"HEAP"]
    by_name = {bytes(data[names_in(data, heap) + 8 :][:9]): heap for heap in heaps}
    struct.pack_into("<Q", data, by_name[group[:9].ljust(9, b"\0")] + 24, names_in(data, by_name[b"PositionX"]))
    path.write_bytes(data)
    return path


def end_of_opening(path: Path) -> int:
    """Status of a process that opens a scan with nothing around it."""
    program = (
        "import sys\nfrom ptychostream.errors import ScanFileError\n"
        "from ptychostream.scans.scan_files import open_scan\n"
        "try:\n    with open_scan(sys.argv[1]): pass\nexcept ScanFileError: pass"
    )
    return subprocess.run([sys.executable, "-c", program, str(path)], timeout=60, check=False).returncode
