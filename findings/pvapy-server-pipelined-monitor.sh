#!/usr/bin/env bash
# pvapy 5.6.0: its PvaServer answers a monitor that asks for flow control (pvRequest "record[queueSize=10,pipeline=true]") with every
# update several times, and among them old ones again after newer ones. The same monitor without `pipeline`, and a pipelined one on the
# server of p4p 4.3.0, get each update once and in order. A receiver that counts frames by their updates counts too many, and one that
# keeps the latest goes back in time; ids have to be compared, or `pipeline` left out.
# Seen 2026-11-30, 100 updates after the first, two milliseconds apart: "pvapy plain: once each, in order",
# "pvapy pipelined: 787 updates, repeated, old ones after newer ones" (the number differs from run to run), "p4p pipelined: once each,
# in order".
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet pvapy==5.6.0 p4p==4.3.0 numpy
cat >"$folder/server.py" <<'PY'
import sys
import time

if sys.argv[1] == "pvapy":
    import pvaccess

    def number(value):
        return pvaccess.PvObject({"number": pvaccess.INT}, {"number": value})

    server = pvaccess.PvaServer("finding:stream", number(0))

    def post(value):
        server.update("finding:stream", number(value))
else:
    from p4p import Type, Value
    from p4p.server import Server, StaticProvider
    from p4p.server.thread import SharedPV

    kind = Type([("number", "i")])
    channel = SharedPV(initial=Value(kind, {"number": 0}))
    provider = StaticProvider("finding")
    provider.add("finding:stream", channel)
    server = Server(providers=[provider])

    def post(value):
        channel.post(Value(kind, {"number": value}))


print("up", flush=True)
sys.stdin.readline()
for value in range(1, 101):
    post(value)
    time.sleep(0.002)
print("sent", flush=True)
sys.stdin.readline()
PY
cat >"$folder/look.py" <<'PY'
import subprocess
import sys
import threading
import time

from p4p import Value
from p4p.client.raw import Context

kind, flow = sys.argv[1:]
server = subprocess.Popen(
    [sys.executable, sys.path[0] + "/server.py", kind], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
)
server.stdout.readline()
arrived, numbers = threading.Event(), []
option = ",pipeline=true" if flow == "pipelined" else ""
with Context("pva", useenv=True, nt=False) as context:
    monitor = context.monitor("finding:stream", arrived.set, f"record[queueSize=10{option}]field()")

    def take():
        arrived.clear()
        while (update := monitor.pop()) is not None:
            if isinstance(update, Value):
                numbers.append(update["number"])

    assert arrived.wait(20)
    take()
    print("go", file=server.stdin, flush=True)
    sent = threading.Thread(target=server.stdout.readline)
    sent.start()
    while sent.is_alive():
        arrived.wait(0.1)
        take()
    time.sleep(1)
    take()
server.kill()
told = "once each, in order" if numbers == list(range(101)) else f"{len(numbers)} updates"
if len(numbers) > len(set(numbers)):
    told += ", repeated"
if any(later < earlier for earlier, later in zip(numbers, numbers[1:])):
    told += ", old ones after newer ones"
print(f"{kind} {flow}: {told}")
PY
read -r pva ca < <(python3 -c 'import socket
ports = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
print(*(port.getsockname()[1] for port in ports))')
export EPICS_PVA_ADDR_LIST=127.0.0.1 EPICS_PVA_AUTO_ADDR_LIST=NO EPICS_PVA_SERVER_PORT=$pva EPICS_PVA_BROADCAST_PORT=$ca
export EPICS_PVAS_INTF_ADDR_LIST=127.0.0.1
for kind in pvapy p4p; do
    for flow in plain pipelined; do
        timeout 60 "$folder/venv/bin/python" "$folder/look.py" $kind $flow 2>>"$folder/log" | tee -a "$folder/seen"
    done
done
grep -qx "pvapy plain: once each, in order" "$folder/seen"
grep -qxE "pvapy pipelined: [0-9]+ updates, repeated, old ones after newer ones" "$folder/seen"
grep -qx "p4p plain: once each, in order" "$folder/seen"
grep -qx "p4p pipelined: once each, in order" "$folder/seen"
