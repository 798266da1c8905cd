"""The region of the sensor in an update, and in the recording of it."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ptychostream.pva.frame_statements import region_said
from ptychostream.scans.hdf5_chunks import as_chunk
from ptychostream.scans.scan_files import ScanOptions, open_scan
from ptychostream.scans.scan_recording import RecordedFrame, ScanRecording

UPDATE = {
    "dimension": [
        {"size": 32, "offset": 128, "fullSize": 1024, "binning": 2, "reverse": True},
        {"size": 16, "offset": 64, "fullSize": 1024, "binning": 2, "reverse": False},
    ]
}


def test_the_region_of_an_update() -> None:
    said = region_said(UPDATE, "det:Image")
    assert {one.quantity: one.value for one in said} == {
        "offset_x": 128, "binning_x": 2, "reverse_x": True, "offset_y": 64, "binning_y": 2, "reverse_y": False,
    }  # fmt: skip
    unset = {"dimension": [dict(one, binning=0) for one in UPDATE["dimension"]]}
    assert region_said(unset, "det:Image").value("binning_x") is None
    assert len(region_said({"dimension": [{"size": 3}]}, "")) == len(region_said({}, "")) == 0


def test_a_recording_keeps_it(tmp_path: Path) -> None:
    recording = ScanRecording(tmp_path / "scan.h5", (16, 32), np.dtype(np.uint16), scan_id="s")
    recording.state(region_said(UPDATE, "det:Image"))
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
