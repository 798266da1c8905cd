"""The region of the sensor that an update states is kept in the recording of it."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ptychostream.frames.stream_watch import region_of, state_region
from ptychostream.scans.hdf5_chunks import as_chunk
from ptychostream.scans.scan_files import ScanOptions, open_scan
from ptychostream.scans.scan_recording import RecordedFrame, ScanRecording
from ptychostream.statements.description import Description

DIMENSIONS = (
    {"size": 32, "offset": 128, "fullSize": 1024, "binning": 2, "reverse": True},
    {"size": 16, "offset": 64, "fullSize": 1024, "binning": 2, "reverse": False},
)


def test_a_recording_keeps_it(tmp_path: Path) -> None:
    recording = ScanRecording(tmp_path / "scan.h5", (16, 32), np.dtype(np.uint16), scan_id="s")
    said = Description("det:Image")
    state_region(said, region_of(DIMENSIONS))
    recording.state(said)
    chunk = as_chunk(np.ones(512, np.uint16), "", (16, 32), np.dtype(np.uint16), "bslz4", check=True)
    recording.append(
        [RecordedFrame(chunk, one, 1.7e9 + one) for one in range(3)], [(one * 1e-6, 0) for one in range(3)]
    )
    recording.set_geometry(energy_ev=1e4, distance_m=1.0, detector_pixel_m=55e-6)
    recording.finish()
    with open_scan(tmp_path / "scan.h5") as scan:
        assert scan.detector_pixel_m == 2 * 55e-6
        assert [scan.said.value(name) for name in ("offset_x", "offset_y", "reverse_x")] == [128, 64, True]
    with open_scan(tmp_path / "scan.h5", ScanOptions(detector_pixel_m=55e-6)) as scan:
        assert scan.detector_pixel_m == 55e-6
