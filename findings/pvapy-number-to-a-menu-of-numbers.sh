#!/usr/bin/env bash
# pvapy 5.6.0: Channel.put of a number to a menu (mbbo, NTEnum) is first looked up as text among the menu's states, and taken for the number
# of a state only if no state reads like it. p4p 4.3.0, aioca 2.1 and caproto 1.3.0 take a number for the number of the state. So on a
# binning menu "1", "2", "4", "8" put(2) by pvapy sets the binning 2, and by the other three the binning 4; put(1) is 1 against 2. Within
# pvapy put(3), which no state reads like, is the fourth state, 8. A text means the same to all four. It is so over PVA and over CA.
# Seen 2026-11-30: "put 0: pvapy 1, p4p 1, aioca 1, caproto 1", "put 1: pvapy 1, p4p 2, aioca 2, caproto 2", "put 2: pvapy 2, p4p 4,
# aioca 4, caproto 4", "put 3: pvapy 8, p4p 8, aioca 8, caproto 8", "put '2': pvapy 2, p4p 2, aioca 2, caproto 2".
set -euo pipefail
folder=$(mktemp -d)
ioc=
trap 'kill $ioc 2>/dev/null || true; rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet pvapy==5.6.0 p4p==4.3.0 aioca==2.1 caproto==1.3.0 epicscorelibs==7.0.10.99.0.2 pvxslibs==1.5.3 numpy
cat >"$folder/menu.db" <<'DB'
record(mbbo, "finding:binning") {
    field(ZRVL, "0") field(ZRST, "1") field(ONVL, "1") field(ONST, "2")
    field(TWVL, "2") field(TWST, "4") field(THVL, "3") field(THST, "8")
}
DB
read -r pva ca < <(python3 -c 'import socket
ports = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
print(*(port.getsockname()[1] for port in ports))')
export EPICS_PVA_ADDR_LIST=127.0.0.1 EPICS_PVA_AUTO_ADDR_LIST=NO EPICS_PVA_SERVER_PORT=$pva EPICS_PVA_BROADCAST_PORT=$pva
export EPICS_PVAS_INTF_ADDR_LIST=127.0.0.1 EPICS_CA_SERVER_PORT=$ca EPICS_CAS_INTF_ADDR_LIST=127.0.0.1
export EPICS_CA_ADDR_LIST=127.0.0.1 EPICS_CA_AUTO_ADDR_LIST=NO
mkfifo "$folder/keep"
"$folder/venv/bin/python" -m pvxslibs.ioc -d "$folder/menu.db" <"$folder/keep" >"$folder/log" 2>&1 &
ioc=$!
exec 9>"$folder/keep"
cat >"$folder/put.py" <<'PY'
import asyncio

import pvaccess  # isort: skip  (before the libraries that bring EPICS base)
import aioca
import caproto.sync.client
from p4p.client.thread import Context

NAME = "finding:binning"


def by_pvapy(value):
    seen = set()
    for provider in (pvaccess.PVA, pvaccess.CA):
        pvaccess.Channel(NAME, provider).put(value)
        seen.add(str(context.get(NAME, timeout=20)))
    assert len(seen) == 1  # the same by either protocol


def by_aioca(value):
    async def put():
        await aioca.caput(NAME, value, wait=True, timeout=20)

    asyncio.run(put())


with Context("pva") as context:
    context.get(NAME, timeout=20)
    clients = {
        "pvapy": by_pvapy,
        "p4p": lambda value: context.put(NAME, value, timeout=20),
        "aioca": by_aioca,
        "caproto": lambda value: caproto.sync.client.write(NAME, value, notify=True, repeater=False, timeout=20),
    }
    for value in (0, 1, 2, 3, "2"):
        told = []
        for client, put in clients.items():
            context.put(NAME, 0, timeout=20)
            put(value)
            told.append(f"{client} {context.get(NAME, timeout=20)}")
        print(f"put {value!r}:", ", ".join(told))
PY
timeout 120 "$folder/venv/bin/python" "$folder/put.py" | tee "$folder/seen"
printf '%s\n' "put 0: pvapy 1, p4p 1, aioca 1, caproto 1" "put 1: pvapy 1, p4p 2, aioca 2, caproto 2" \
    "put 2: pvapy 2, p4p 4, aioca 4, caproto 4" "put 3: pvapy 8, p4p 8, aioca 8, caproto 8" "put '2': pvapy 2, p4p 2, aioca 2, caproto 2" |
    diff "$folder/seen" -
