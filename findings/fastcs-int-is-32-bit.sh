#!/usr/bin/env bash
# fastcs 0.14.4: an Int attribute holds any Python integer, and both EPICS transports serve it in 32 bits with sign: the CA transport by
# a longin record of softioc, the PVA transport by an int32. Neither asks whether the number fits, and no alarm is raised. The count
# cutoff of an EIGER in 32-bit mode, 4294967295, is -1 for every client, and a count of 3,000,000,000 ticks is -1294967296.
# Seen 2026-11-30: "attribute 4294967295, CA -1 severity 0, PVA -1 severity 0", and the same for 3000000000 with -1294967296.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet 'fastcs[epics]==0.14.4' softioc==4.7.2 epicscorelibs==7.0.10.99.0.2 pvxslibs==1.5.3 p4p==4.3.0 aioca==2.1
read -r pva ca < <(python3 -c 'import socket
ports = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
print(*(port.getsockname()[1] for port in ports))')
export EPICS_PVA_ADDR_LIST=127.0.0.1 EPICS_PVA_AUTO_ADDR_LIST=NO EPICS_PVA_SERVER_PORT=$pva EPICS_PVA_BROADCAST_PORT=$pva
export EPICS_PVAS_INTF_ADDR_LIST=127.0.0.1 EPICS_CA_SERVER_PORT=$ca EPICS_CAS_INTF_ADDR_LIST=127.0.0.1
export EPICS_CA_ADDR_LIST=127.0.0.1 EPICS_CA_AUTO_ADDR_LIST=NO
cat >"$folder/serve.py" <<'PY'
import asyncio
import sys

from fastcs.attributes import AttrR
from fastcs.control_system import FastCS
from fastcs.controllers import Controller
from fastcs.datatypes import Int
from fastcs.transports.epics.ca.transport import EpicsCATransport
from fastcs.transports.epics.pva.transport import EpicsPVATransport
from loguru import logger

logger.remove()


class Detector(Controller):
    cutoff = AttrR(Int())
    ticks = AttrR(Int())


async def main(kind):
    detector = Detector()
    detector.set_path([kind.upper()])
    transport = EpicsCATransport() if kind == "ca" else EpicsPVATransport()
    serving = asyncio.create_task(FastCS(detector, [transport], loop=asyncio.get_running_loop()).serve(interactive=False))
    await asyncio.sleep(2)
    await detector.cutoff.update(4294967295)
    await detector.ticks.update(3000000000)
    print("up", detector.cutoff.get(), detector.ticks.get(), flush=True)
    await serving


asyncio.run(main(sys.argv[1]))
PY
cat >"$folder/look.py" <<'PY'
import asyncio
import subprocess
import sys

from aioca import FORMAT_TIME, caget
from p4p.client.thread import Context


def serve(kind):
    server = subprocess.Popen([sys.executable, f"{sys.argv[1]}/serve.py", kind], stdout=subprocess.PIPE, text=True)
    for line in server.stdout:
        if line.startswith("up"):
            return server, line.split()[1:]


async def ca(name):
    value = await caget(name, format=FORMAT_TIME, timeout=20)
    return f"CA {value} severity {value.severity}"


(first, held), (second, _) = serve("ca"), serve("pva")
try:
    with Context("pva") as context:
        for name, value in zip(("Cutoff", "Ticks"), held):
            seen = context.get(f"PVA:{name}", timeout=20)
            print(f"attribute {value}, {asyncio.run(ca(f'CA:{name}'))}, PVA {int(seen)} severity {seen.severity}")
finally:
    first.kill()
    second.kill()
PY
timeout 120 "$folder/venv/bin/python" "$folder/look.py" "$folder" | tee "$folder/seen"
printf '%s\n' "attribute 4294967295, CA -1 severity 0, PVA -1 severity 0" \
    "attribute 3000000000, CA -1294967296 severity 0, PVA -1294967296 severity 0" | diff "$folder/seen" -
