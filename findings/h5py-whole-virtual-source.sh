#!/usr/bin/env bash
# h5py 3.16.0 (HDF5 2.0.0): a virtual data set that maps a whole VirtualSource, as detector writers link one file after the other,
# does not say the source's extent when it is read back: src_space of virtual_sources() is a scalar space of shape (), and
# get_select_bounds() raises ValueError "Invalid pointer". The same rows mapped by a slice of the source have shape and bounds.
# A reader that checks which part of a source is mapped has to take "whole" for a space without dimensions.
# Seen 2026-11-30: "whole: shape () ValueError" and "slice: shape (2, 4) bounds ((0, 0), (1, 3))".
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet h5py==3.16.0 numpy
cat >"$folder/look.py" <<'PY'
import sys

import h5py
import numpy as np

folder = sys.argv[1]
with h5py.File(f"{folder}/source.h5", "w") as file:
    file["data"] = np.arange(8).reshape(2, 4)
source = h5py.VirtualSource(f"{folder}/source.h5", "data", (2, 4))
layout = h5py.VirtualLayout((4, 4), "i8")
layout[0:2] = source
layout[2:4] = source[0:2]
with h5py.File(f"{folder}/virtual.h5", "w") as file:
    file.create_virtual_dataset("data", layout)
with h5py.File(f"{folder}/virtual.h5") as file:
    assert (file["data"][:2] == file["data"][2:]).all()  # both mappings read the same
    for name, mapping in zip(("whole", "slice"), file["data"].virtual_sources()):
        space = mapping.src_space
        try:
            text = f"bounds {space.get_select_bounds()}"
        except ValueError as error:
            text = f"ValueError {error}"
        print(f"{name}: shape {space.shape} {text}")
PY
"$folder/venv/bin/python" "$folder/look.py" "$folder" | tee "$folder/seen"
grep -q "^whole: shape () ValueError Invalid pointer" "$folder/seen"
grep -q "^slice: shape (2, 4) bounds ((0, 0), (1, 3))" "$folder/seen"
