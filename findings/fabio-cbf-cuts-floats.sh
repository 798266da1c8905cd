#!/usr/bin/env bash
# fabio 2026.6.0: a frame of floats that is written as CBF is cut to whole numbers, and the writer says nothing: 0.9 and -0.5 become 0.
# The reader gives int32 and logs "Defaulting type to int32". The same frame as EDF or TIFF comes back as it was. The mean of many frames
# with less than one count a pixel, as weak diffraction gives, is therefore an empty image as CBF, and a frame divided by its flat field
# loses up to a count a pixel.
# Seen 2026-11-30: "cbf: int32 0 0 0 2", "edf: float32 0.2 0.9 -0.5 2.7", "tif: float32 0.2 0.9 -0.5 2.7".
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet fabio==2026.6.0 numpy
cat >"$folder/look.py" <<'PY'
import sys
import warnings

import fabio
import numpy as np

warnings.simplefilter("error")  # none is raised
frame = np.array([[0.2, 0.9, -0.5, 2.7]] * 4, np.float32)
for kind, image in (("cbf", fabio.cbfimage.CbfImage), ("edf", fabio.edfimage.EdfImage), ("tif", fabio.tifimage.TifImage)):
    path = f"{sys.argv[1]}/frame.{kind}"
    image(data=frame).write(path)
    back = fabio.open(path).data
    print(f"{kind}: {back.dtype}", *back[0])
PY
"$folder/venv/bin/python" "$folder/look.py" "$folder" | tee "$folder/seen"
printf '%s\n' "cbf: int32 0 0 0 2" "edf: float32 0.2 0.9 -0.5 2.7" "tif: float32 0.2 0.9 -0.5 2.7" | diff "$folder/seen" -
