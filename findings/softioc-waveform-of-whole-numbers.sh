#!/usr/bin/env bash
# softioc 4.7.2: a waveform takes its type from its first value, and whole numbers of 64 bits, which Python's and numpy's are, make it one of
# 32 bits. From then on set() converts without a word. Positions on a waveform that was made with [0, 0, 0] lose their decimals, and
# time stamps in nanoseconds on one that was made with int64 zeros lose their upper half, although the waveform record of the same EPICS
# base has INT64. A list of Python numbers that is too large for 32 bits raises OverflowError; the same numbers as an array do not.
# Seen 2026-11-30: "[0.2, 0.9, -1.7] -> 0 0 -1", "int64 [1796000000123456789, 7] -> 133549333 7",
# "list [1796000000123456789, 7] -> OverflowError", "plain record of INT64 -> 1796000000123456789 7".
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet softioc==4.7.2 epicscorelibs==7.0.10.99.0.2 pvxslibs==1.5.3 p4p==4.3.0 numpy
read -r pva ca < <(python3 -c 'import socket
ports = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
print(*(port.getsockname()[1] for port in ports))')
export EPICS_PVA_ADDR_LIST=127.0.0.1 EPICS_PVA_AUTO_ADDR_LIST=NO EPICS_PVA_SERVER_PORT=$pva EPICS_PVA_BROADCAST_PORT=$pva
export EPICS_PVAS_INTF_ADDR_LIST=127.0.0.1 EPICS_CA_SERVER_PORT=$ca EPICS_CAS_INTF_ADDR_LIST=127.0.0.1
cat >"$folder/plain.db" <<'DB'
record(waveform, "finding:plain") { field(FTVL, "INT64") field(NELM, "2") }
DB
cat >"$folder/look.py" <<'PY'
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from p4p.client.thread import Context
from softioc import builder, softioc

STAMPS = [1_796_000_000_123_456_789, 7]


class Dispatcher:
    def __init__(self):
        self.pool = ThreadPoolExecutor(1)

    def __call__(self, function, args=(), completion=None, completion_args=()):
        self.pool.submit(lambda: (function(*args), completion and completion(*completion_args)))


softioc.dbLoadDatabase(f"{sys.argv[1]}/plain.db")
builder.SetDeviceName("finding")
positions = builder.WaveformIn("positions", [0, 0, 0])
stamps = builder.WaveformIn("stamps", np.zeros(2, np.int64))
builder.LoadDatabase()
softioc.iocInit(Dispatcher())
with Context("pva") as context:

    def seen(name):
        return " ".join(str(int(value)) for value in context.get(f"finding:{name}", timeout=20))

    positions.set([0.2, 0.9, -1.7])
    print("[0.2, 0.9, -1.7] ->", seen("positions"))
    stamps.set(np.array(STAMPS))
    print(f"int64 {STAMPS} ->", seen("stamps"))
    try:
        stamps.set(STAMPS)
        print(f"list {STAMPS} ->", seen("stamps"))
    except OverflowError:
        print(f"list {STAMPS} -> OverflowError")
    context.put("finding:plain", np.array(STAMPS), timeout=20)
    print("plain record of INT64 ->", seen("plain"))
sys.stdout.flush()
softioc.epicsExit(0)
PY
timeout 120 "$folder/venv/bin/python" "$folder/look.py" "$folder" 2>"$folder/log" | grep -e '->' | tee "$folder/seen"
printf '%s\n' "[0.2, 0.9, -1.7] -> 0 0 -1" "int64 [1796000000123456789, 7] -> 133549333 7" \
    "list [1796000000123456789, 7] -> OverflowError" "plain record of INT64 -> 1796000000123456789 7" | diff "$folder/seen" -
