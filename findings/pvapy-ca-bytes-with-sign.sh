#!/usr/bin/env bash
# pvapy 5.6.0 over Channel Access: an array of bytes comes as signed bytes, so a pixel of 200 counts is -56 and a saturated one, 255, is -1.
# aioca 2.1 and caproto 1.3.0 take the same array for unsigned bytes, as EPICS base's dbr_char_t is declared; Channel Access does not say
# what the record has. Over PVA, which does, pvapy gives unsigned bytes. An 8-bit image of areaDetector (ArrayData) that pvapy reads by CA
# is therefore right up to 127 counts, and black where it is brightest.
# Seen 2026-11-30, a waveform of UCHAR 0 127 128 200 255: "pvapy CA: 0 127 -128 -56 -1", "pvapy PVA", "aioca CA" and "caproto CA":
# "0 127 128 200 255".
set -euo pipefail
folder=$(mktemp -d)
ioc=
trap 'kill $ioc 2>/dev/null || true; rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet pvapy==5.6.0 aioca==2.1 caproto==1.3.0 epicscorelibs==7.0.10.99.0.2 pvxslibs==1.5.3 numpy
cat >"$folder/image.db" <<'DB'
record(waveform, "finding:image") {
    field(FTVL, "UCHAR") field(NELM, "5") field(PINI, "YES") field(INP, [0, 127, 128, 200, 255])
}
DB
read -r pva ca < <(python3 -c 'import socket
ports = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
print(*(port.getsockname()[1] for port in ports))')
export EPICS_PVA_ADDR_LIST=127.0.0.1 EPICS_PVA_AUTO_ADDR_LIST=NO EPICS_PVA_SERVER_PORT=$pva EPICS_PVA_BROADCAST_PORT=$pva
export EPICS_PVAS_INTF_ADDR_LIST=127.0.0.1 EPICS_CA_SERVER_PORT=$ca EPICS_CAS_INTF_ADDR_LIST=127.0.0.1
export EPICS_CA_ADDR_LIST=127.0.0.1 EPICS_CA_AUTO_ADDR_LIST=NO
mkfifo "$folder/keep"
"$folder/venv/bin/python" -m pvxslibs.ioc -d "$folder/image.db" <"$folder/keep" >"$folder/log" 2>&1 &
ioc=$!
exec 9>"$folder/keep"
cat >"$folder/get.py" <<'PY'
import asyncio

import pvaccess  # isort: skip  (before the libraries that bring EPICS base)
import aioca
import caproto.sync.client

NAME = "finding:image"


async def by_aioca():
    return await aioca.caget(NAME, timeout=20)


read = {
    "aioca CA": asyncio.run(by_aioca()),
    "caproto CA": caproto.sync.client.read(NAME, repeater=False, timeout=20).data,
    "pvapy CA": pvaccess.Channel(NAME, pvaccess.CA).get()["value"],
    "pvapy PVA": pvaccess.Channel(NAME, pvaccess.PVA).get()["value"],
}
for client, values in read.items():
    print(f"{client}:", *(int(value) for value in values))
PY
timeout 120 "$folder/venv/bin/python" "$folder/get.py" | tee "$folder/seen"
printf '%s\n' "aioca CA: 0 127 128 200 255" "caproto CA: 0 127 128 200 255" "pvapy CA: 0 127 -128 -56 -1" \
    "pvapy PVA: 0 127 128 200 255" | diff "$folder/seen" -
