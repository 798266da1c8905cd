#!/usr/bin/env bash
# area-detector-handlers 0.0.10 (bluesky's readers of detector files): EigerHandler gives the frames of a scan's first data file in the place
# of the second, the third and so on. It chooses the file by (number of the file) // images_per_file where it means the file itself, so the
# second file is read from file number images_per_file on. The array has the scan's length as long as the files are equally long; a last
# file that is shorter is given back as long as the others. With images_per_file=1 every file is its own.
# Seen 2026-11-30, three files of 4, 4 and 2 frames, every pixel the number of its frame: "frames 0 1 2 3 0 1 2 3 0 1 2 3"; by the links of
# the master file: "frames 0 1 2 3 4 5 6 7 8 9".
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet area-detector-handlers==0.0.10 h5py==3.16.0 numpy
cat >"$folder/look.py" <<'PY'
import sys

import h5py
import numpy as np
from area_detector_handlers.eiger import EigerHandler

folder, files = sys.argv[1], ((0, 1, 2, 3), (4, 5, 6, 7), (8, 9))
with h5py.File(f"{folder}/scan_7_master.h5", "w") as master:  # as the detector's file writer makes it
    for name in ("x_pixel_size", "y_pixel_size", "detector_distance", "frame_time", "count_time", "beam_center_x", "beam_center_y"):
        master[f"entry/instrument/detector/{name}"] = 1.0
    master["entry/instrument/beam/incident_wavelength"] = 1.0
    master["entry/instrument/detector/detectorSpecific/pixel_mask"] = np.zeros((4, 5), np.uint32)
    for number, frames in enumerate(files, 1):
        name = f"scan_7_data_{number:06d}.h5"
        with h5py.File(f"{folder}/{name}", "w") as file:
            file["entry/data/data"] = np.stack([np.full((4, 5), frame, np.uint32) for frame in frames])
        master[f"entry/data/data_{number:06d}"] = h5py.ExternalLink(name, "/entry/data/data")
stack = EigerHandler(f"{folder}/scan", images_per_file=4)(7)
print("handler: frames", *stack[:, 0, 0].compute())
with h5py.File(f"{folder}/scan_7_master.h5") as master:
    print("links: frames", *np.concatenate([data[:, 0, 0] for data in master["entry/data"].values()]))
PY
"$folder/venv/bin/python" "$folder/look.py" "$folder" | tee "$folder/seen"
printf '%s\n' "handler: frames 0 1 2 3 0 1 2 3 0 1 2 3" "links: frames 0 1 2 3 4 5 6 7 8 9" | diff "$folder/seen" -
