#!/usr/bin/env bash
# p4p 4.3.0: NTTable.wrap takes rows as dicts and lets a row lack a column. It leaves no gap in that column: all later values of it move up
# by a row, and the column ends one short. NTTable.unwrap, which makes rows again, pairs the columns up to the shortest one. So a client
# sees a row less, from the gap on with another row's value, and no error: a frame without a position gets the next frame's, and the
# last frame is gone. Only the raw value shows it: its columns differ in length.
# Seen 2026-11-30: "sent 1: 0.1 1.0, 2: - 2.0, 3: 0.3 3.0, 4: 0.4 4.0", "got 1: 0.1 1.0, 2: 0.3 2.0, 3: 0.4 3.0", "columns 4, 3, 4 long".
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet p4p==4.3.0 epicscorelibs==7.0.10.99.0.2 pvxslibs==1.5.3 numpy
cat >"$folder/look.py" <<'PY'
from p4p.client.thread import Context
from p4p.nt import NTTable
from p4p.server import Server
from p4p.server.thread import SharedPV

rows = [{"frame": 1, "x": 0.1, "y": 1.0}, {"frame": 2, "y": 2.0}, {"frame": 3, "x": 0.3, "y": 3.0}, {"frame": 4, "x": 0.4, "y": 4.0}]


def told(table):
    return ", ".join(f"{row['frame']}: {row.get('x', '-')} {row['y']}" for row in table)


channel = SharedPV(nt=NTTable([("frame", "i"), ("x", "d"), ("y", "d")]), initial=[])
channel.post(rows)
with Server(providers=[{"finding:table": channel}], isolate=True) as server:
    with Context("pva", conf=server.conf(), useenv=False) as context:
        value = context.get("finding:table", timeout=20)
print("sent", told(rows))
print("got", told(NTTable.unwrap(value)))
print("columns", ", ".join(str(len(value.value[name])) for name in ("frame", "x", "y")), "long")
PY
timeout 120 "$folder/venv/bin/python" "$folder/look.py" | tee "$folder/seen"
printf '%s\n' "sent 1: 0.1 1.0, 2: - 2.0, 3: 0.3 3.0, 4: 0.4 4.0" "got 1: 0.1 1.0, 2: 0.3 2.0, 3: 0.4 3.0" "columns 4, 3, 4 long" |
    diff "$folder/seen" -
