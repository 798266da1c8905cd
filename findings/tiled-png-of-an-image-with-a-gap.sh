#!/usr/bin/env bash
# tiled 0.2.20: the picture of an array (image/png, and text/html made of it) is scaled from the 1st to the 99th percentile of all pixels.
# One NaN makes both percentiles NaN, and the whole picture is black: a phase image with NaN where nothing was measured, a frame with NaN
# in its gaps. In a frame of which less than 1 % is lit, as weak far-field diffraction is, both percentiles are 0, and whatever has a
# count is white, 1 as well as 60,000. Nothing is raised. As TIFF or as an array the same data come as they are.
# Seen 2026-11-30: "ramp: 0 to 255, 256 grey levels", "ramp with one NaN: 0 to 0, 1 grey levels", "sparse frame, 1 and 60000 counts:
# 255 and 255".
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet tiled==0.2.20 numpy pillow
cat >"$folder/look.py" <<'PY'
import io

import numpy as np
import tiled.serialization.array  # registers the formats of arrays
from PIL import Image
from tiled.media_type_registration import default_serialization_registry


def picture(array):
    """The PNG that tiled's server answers with."""
    with np.errstate(all="ignore"):
        png = default_serialization_registry.dispatch("array", "image/png")("image/png", array, {})
    return np.asarray(Image.open(io.BytesIO(png)))


ramp = np.linspace(0, 1, 64 * 64).reshape(64, 64)
gap = ramp.copy()
gap[0, 0] = np.nan
for name, array in (("ramp", ramp), ("ramp with one NaN", gap)):
    seen = picture(array)
    print(f"{name}: {seen.min()} to {seen.max()}, {len(np.unique(seen))} grey levels")
frame = np.zeros((64, 64), np.uint16)
frame[30, 30], frame[32, 32] = 1, 60_000
seen = picture(frame)
print(f"sparse frame, 1 and 60000 counts: {seen[30, 30]} and {seen[32, 32]}")
PY
"$folder/venv/bin/python" -W ignore "$folder/look.py" | tee "$folder/seen"
printf '%s\n' "ramp: 0 to 255, 256 grey levels" "ramp with one NaN: 0 to 0, 1 grey levels" \
    "sparse frame, 1 and 60000 counts: 255 and 255" | diff "$folder/seen" -
