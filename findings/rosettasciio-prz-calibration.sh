#!/usr/bin/env bash
# RosettaSciIO 0.15.0: a 4D-STEM scan that it writes as .prz (Panta Rhei) comes back from its own reader without step, offset, unit and
# name of any axis. The writer puts them under inherited.calib, the reader looks for device.calib alone. The reader's default, without
# allow_restricted_pickle, loads none of the meta data that this writer makes, and says so; with it, voltage and camera length are
# there, so that nothing hints at what is missing. HyperSpy takes a missing step for 1.
# Seen 2026-11-30: "written: y 2.0 nm, x 3.0 nm, ky 0.1 1/nm, kx 0.2 1/nm", "read: Index None None, Index None None, Y None None,
# X None None" and "energy 200.0, camera length 120.0".
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet rosettasciio==0.15.0 numpy
cat >"$folder/look.py" <<'PY'
import sys

import numpy as np
from rsciio.pantarhei import file_reader, file_writer

path = f"{sys.argv[1]}/scan.prz"
counts = np.arange(3 * 5 * 8 * 8, dtype=np.uint16).reshape(3, 5, 8, 8)
steps = (("y", 2.0, "nm"), ("x", 3.0, "nm"), ("ky", 0.1, "1/nm"), ("kx", 0.2, "1/nm"))
axes = [{"name": name, "size": counts.shape[i], "scale": step, "offset": 0.0, "units": unit, "navigate": i < 2, "index_in_array": i,
         "_type": "UniformDataAxis", "is_binned": False} for i, (name, step, unit) in enumerate(steps)]
microscope = {"beam_energy": 200.0, "camera_length": 120.0}
metadata = {"General": {"title": "scan"}, "Signal": {"signal_type": "electron_diffraction"},
            "Acquisition_instrument": {"TEM": microscope}}
file_writer(path, {"data": counts, "axes": axes, "metadata": metadata, "original_metadata": {}, "attributes": {"_lazy": False}})
back = file_reader(path, allow_restricted_pickle=True)[0]
assert (back["data"] == counts).all()
print("written:", ", ".join(f"{name} {step} {unit}" for name, step, unit in steps))
print("read:", ", ".join(f"{axis['name']} {axis.get('scale')} {axis.get('units')}" for axis in back["axes"]))
seen = back["metadata"]["Acquisition_instrument"]["TEM"]
print(f"energy {seen['beam_energy']}, camera length {seen['camera_length']}")
PY
"$folder/venv/bin/python" "$folder/look.py" "$folder" | grep -v WARNING | tee "$folder/seen"
printf '%s\n' "written: y 2.0 nm, x 3.0 nm, ky 0.1 1/nm, kx 0.2 1/nm" "read: Index None None, Index None None, Y None None, X None None" \
    "energy 200.0, camera length 120.0" | diff "$folder/seen" -
