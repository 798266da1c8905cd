#!/usr/bin/env bash
# caproto 1.3.0: a channel of a caproto IOC that is given one alarm limit has two, because the other one is 0 and is judged as well. With
# upper_alarm_limit=100 alone a temperature of -5 is in MAJOR alarm (LOLO); with lower_alarm_limit=10 alone every value is in alarm. The
# ai record of EPICS base, which has the same four limits and 0 for those that nobody set, alarms only by the limits whose severity is
# set. The control limits are the same: with lower_ctrl_limit=10 alone every write is refused.
# Seen 2026-11-30: "upper_alarm_limit=100: -5 LOLO MAJOR_ALARM, 50 NO_ALARM, 150 HIHI MAJOR_ALARM", "lower_alarm_limit=10: -5 LOLO
# MAJOR_ALARM, 50 HIHI MAJOR_ALARM, 150 HIHI MAJOR_ALARM", "lower_ctrl_limit=10: -5 refused, 50 refused, 150 refused", and for the ai
# record with HIHI=100 "-5 NO_ALARM, 50 NO_ALARM, 150 HIHI MAJOR_ALARM".
set -euo pipefail
folder=$(mktemp -d)
ioc=
trap 'kill $ioc 2>/dev/null || true; rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet caproto==1.3.0 epicscorelibs==7.0.10.99.0.2 pvxslibs==1.5.3 numpy
cat >"$folder/record.db" <<'DB'
record(ai, "finding:record") { field(HIHI, "100") field(HHSV, "MAJOR") }
DB
read -r pva ca own < <(python3 -c 'import socket
ports = [socket.create_server(("127.0.0.1", 0)) for _ in range(3)]
print(*(port.getsockname()[1] for port in ports))')
export EPICS_PVAS_INTF_ADDR_LIST=127.0.0.1 EPICS_PVA_SERVER_PORT=$pva EPICS_PVA_BROADCAST_PORT=$pva
export EPICS_CAS_INTF_ADDR_LIST=127.0.0.1 EPICS_CA_ADDR_LIST="127.0.0.1:$ca 127.0.0.1:$own" EPICS_CA_AUTO_ADDR_LIST=NO
mkfifo "$folder/keep"
EPICS_CA_SERVER_PORT=$ca "$folder/venv/bin/python" -m pvxslibs.ioc -d "$folder/record.db" <"$folder/keep" >"$folder/log" 2>&1 &
ioc=$!
exec 9>"$folder/keep"
cat >"$folder/serve.py" <<'PY'
from caproto.server import PVGroup, pvproperty, run


class Oven(PVGroup):
    high = pvproperty(value=0.0, upper_alarm_limit=100.0)
    low = pvproperty(value=0.0, lower_alarm_limit=10.0)
    limited = pvproperty(value=20.0, lower_ctrl_limit=10.0)


run(Oven(prefix="finding:").pvdb, interfaces=["127.0.0.1"])
PY
cat >"$folder/look.py" <<'PY'
import os
import subprocess
import sys

from caproto import AlarmSeverity, AlarmStatus, ErrorResponseReceived
from caproto.sync.client import read, write


def told(name):
    alarms = []
    for value in (-5, 50, 150):
        try:
            write(name, value, notify=True, repeater=False, timeout=20)
        except ErrorResponseReceived:
            alarms.append(f"{value} refused")
            continue
        seen = read(name, data_type="time", repeater=False, timeout=20).metadata
        severity, status = AlarmSeverity(seen.severity).name, AlarmStatus(seen.status).name
        alarms.append(f"{value} {severity}" if severity == "NO_ALARM" else f"{value} {status} {severity}")
    return ", ".join(alarms)


environment = {**os.environ, "EPICS_CA_SERVER_PORT": sys.argv[2]}
server = subprocess.Popen([sys.executable, f"{sys.argv[1]}/serve.py"], env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
try:
    print("upper_alarm_limit=100:", told("finding:high"))
    print("lower_alarm_limit=10:", told("finding:low"))
    print("lower_ctrl_limit=10:", told("finding:limited"))
    print("ai record, HIHI=100:", told("finding:record"))
finally:
    server.kill()
PY
timeout 120 "$folder/venv/bin/python" "$folder/look.py" "$folder" "$own" | tee "$folder/seen"
printf '%s\n' "upper_alarm_limit=100: -5 LOLO MAJOR_ALARM, 50 NO_ALARM, 150 HIHI MAJOR_ALARM" \
    "lower_alarm_limit=10: -5 LOLO MAJOR_ALARM, 50 HIHI MAJOR_ALARM, 150 HIHI MAJOR_ALARM" \
    "lower_ctrl_limit=10: -5 refused, 50 refused, 150 refused" \
    "ai record, HIHI=100: -5 NO_ALARM, 50 NO_ALARM, 150 HIHI MAJOR_ALARM" | diff "$folder/seen" -
