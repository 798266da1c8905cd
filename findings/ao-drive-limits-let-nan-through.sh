#!/usr/bin/env bash
# EPICS base (epicscorelibs 7.0.10.99.0.2, served by pvxslibs 1.5.3): the drive limits of an ao record clamp a put of infinity to
# DRVH, as they do any number above it, but let NaN through: VAL becomes NaN, and the record goes into UDF alarm (INVALID).
# A put of NaN to a limited setpoint is therefore not refused by the record; whoever reads VAL has to.
# Seen 2026-11-30: "99 -> 10.0 severity 0", "inf -> 10.0 severity 0", "nan -> nan severity 3".
set -euo pipefail
folder=$(mktemp -d)
ioc=
trap 'kill $ioc 2>/dev/null || true; rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet epicscorelibs==7.0.10.99.0.2 pvxslibs==1.5.3 p4p==4.3.0 numpy
cat >"$folder/limited.db" <<'DB'
record(ao, "finding:limited") { field(VAL, "5") field(PINI, "YES") field(DRVL, "0") field(DRVH, "10") }
DB
read -r pva ca < <(python3 -c 'import socket
ports = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
print(*(port.getsockname()[1] for port in ports))')
export EPICS_PVA_ADDR_LIST=127.0.0.1 EPICS_PVA_AUTO_ADDR_LIST=NO EPICS_PVA_SERVER_PORT=$pva EPICS_PVA_BROADCAST_PORT=$pva
export EPICS_PVAS_INTF_ADDR_LIST=127.0.0.1 EPICS_CA_SERVER_PORT=$ca EPICS_CAS_INTF_ADDR_LIST=127.0.0.1
mkfifo "$folder/keep"
"$folder/venv/bin/python" -m pvxslibs.ioc -d "$folder/limited.db" <"$folder/keep" >"$folder/log" 2>&1 &
ioc=$!
exec 9>"$folder/keep"
cat >"$folder/put.py" <<'PY'
from p4p.client.thread import Context

with Context("pva", nt=False) as context:
    for value in (99.0, float("inf"), float("nan")):
        context.put("finding:limited", {"value": value}, timeout=20)
        seen = context.get("finding:limited", timeout=20)
        print(f"{value:g} -> {seen.value} severity {seen.alarm.severity}")
PY
"$folder/venv/bin/python" "$folder/put.py" | tee "$folder/seen"
printf '%s\n' "99 -> 10.0 severity 0" "inf -> 10.0 severity 0" "nan -> nan severity 3" | diff "$folder/seen" -
