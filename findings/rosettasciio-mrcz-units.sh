#!/usr/bin/env bash
# RosettaSciIO 0.15.0 with mrcz 0.6.0: the writer of .mrcz and .mrc hands the unit of the axes to mrcz as HyperSpy spells it. mrcz knows
# \AA, \mum and pm, and takes everything else for nanometres, without a word. So 0.5 µm and 0.5 Å per pixel are written as 0.5 nm, and a
# stack of diffraction patterns in 1/nm becomes one in nm with the same number. The header of the file is wrong, not only the reader:
# mrcfile 1.5.4, which reads it as the format says, in Å, has 5 Å each time.
# Seen 2026-11-30: "0.5 nm -> 0.5 nm, header 5 Å", the same for "0.5 µm", "0.5 Å", "0.5 1/nm"; "0.5 pm -> 0.0005 nm, header 0.005 Å".
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet rosettasciio==0.15.0 mrcz==0.6.0 mrcfile==1.5.4 numpy
cat >"$folder/look.py" <<'PY'
import sys

import mrcfile
import numpy as np
from rsciio.mrcz import file_reader, file_writer

path = f"{sys.argv[1]}/stack.mrc"
counts = np.arange(3 * 8 * 8, dtype=np.uint16).reshape(3, 8, 8)
for unit in ("nm", "µm", "Å", "1/nm", "pm"):
    axes = [{"name": name, "size": size, "scale": 0.5, "offset": 0.0, "units": unit, "navigate": name == "z", "index_in_array": i,
             "_type": "UniformDataAxis", "is_binned": False} for i, (name, size) in enumerate(zip("zyx", counts.shape))]
    file_writer(path, {"data": counts, "axes": axes, "metadata": {"General": {}, "Signal": {}}, "original_metadata": {},
                       "attributes": {"_lazy": False}})
    back = file_reader(path)[0]
    assert (back["data"] == counts).all()
    x = back["axes"][-1]
    with mrcfile.open(path, permissive=True, header_only=True) as file:
        width = float(file.header.cella.x) / int(file.header.nx)
    print(f"0.5 {unit} -> {x['scale']:.4g} {x['units']}, header {width:.4g} Å")
PY
PYTHONIOENCODING=utf-8 "$folder/venv/bin/python" "$folder/look.py" "$folder" | tee "$folder/seen"
printf '%s\n' "0.5 nm -> 0.5 nm, header 5 Å" "0.5 µm -> 0.5 nm, header 5 Å" "0.5 Å -> 0.5 nm, header 5 Å" "0.5 1/nm -> 0.5 nm, header 5 Å" \
    "0.5 pm -> 0.0005 nm, header 0.005 Å" | diff "$folder/seen" -
