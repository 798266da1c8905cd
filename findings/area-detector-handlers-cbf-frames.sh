#!/usr/bin/env bash
# area-detector-handlers 0.0.10 (bluesky's readers of detector files): PilatusCBFHandler with frame_per_point = n gives 2n − 1 files for
# every point, not n, if the files are numbered from 1, its default. The last n − 1 of a point are the first n − 1 of the next one;
# the very last point asks for files that no scan writes. With n = 1 and files numbered from 0 every point has two frames.
# The file list of get_file_list is the same. AreaDetectorTiffHandler gives n frames.
# Seen 2026-11-30: "cbf point 0: frames 1 2 3 4 5", "cbf point 1: frames 4 5 6 7 8", "tiff point 0: frames 0 1 2".
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet area-detector-handlers==0.0.10 fabio==2026.6.0 tifffile==2026.3.3 h5py==3.16.0 numpy
cat >"$folder/look.py" <<'PY'
import sys

import fabio
import numpy as np
import tifffile
from area_detector_handlers.handlers import AreaDetectorTiffHandler, PilatusCBFHandler

folder = sys.argv[1]
for number in range(10):  # every pixel of a frame is the number of its file
    frame = np.full((4, 5), number, np.int32)
    fabio.cbfimage.CbfImage(data=frame).write(f"{folder}/scan_{number:05d}.cbf")
    tifffile.imwrite(f"{folder}/scan_{number:05d}.tif", frame)
cbf = PilatusCBFHandler(folder, "%s%s_%05d.cbf", "scan", frame_per_point=3)
tiff = AreaDetectorTiffHandler(folder, "%s%s_%05d.tif", "scan", frame_per_point=3)
for name, handler, point in (("cbf", cbf, 0), ("cbf", cbf, 1), ("tiff", tiff, 0)):
    print(f"{name} point {point}: frames", *handler(point_number=point)[:, 0, 0])
PY
"$folder/venv/bin/python" "$folder/look.py" "$folder" | tee "$folder/seen"
printf '%s\n' "cbf point 0: frames 1 2 3 4 5" "cbf point 1: frames 4 5 6 7 8" "tiff point 0: frames 0 1 2" | diff "$folder/seen" -
