#!/usr/bin/env bash
# p4p 4.3.0: NTNDArray.buildType(extra=[…]) raises AttributeError, where buildType of the other types (NTScalar, NTEnum, NTTable)
# takes extra fields in the same form. An NTNDArray with a field of its own has to be made as a plain p4p.Type.
# Seen 2026-11-30: "AttributeError: 'tuple' object has no attribute 'extend'"; NTTable: the type has the field.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet p4p==4.3.0 numpy
timeout 60 "$folder/venv/bin/python" - <<'PY'
import sys

from p4p.nt import NTNDArray, NTTable

table = NTTable.buildType(columns=[("x", "d")], extra=[("site", "s")])
print("NTTable:", "the type has the field" if "site" in table.keys() else "no field")
try:
    NTNDArray.buildType(extra=[("site", "s")])
except AttributeError as error:
    print(f"NTNDArray: AttributeError: {error}")
    sys.exit(0 if "site" in table.keys() else 1)
sys.exit(1)
PY
