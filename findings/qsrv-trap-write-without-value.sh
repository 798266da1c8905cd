#!/usr/bin/env bash
# QSRV 2 (pvxslibs 1.5.3) calls an access security trap-write listener for a put over PV Access with data == NULL; the Channel
# Access server (epicscorelibs 7.0.10.99.0.2) gives the listener the value. A put log that takes the value from the message, as
# asTrapWrite.h describes it, has it for caput only.
# Seen 2026-11-30: "CA: data given" and "PVA: data NULL".
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet softioc==4.7.2 epicscorelibs==7.0.10.99.0.2 pvxslibs==1.5.3 p4p==4.3.0 caproto==1.3.0 numpy
cat >"$folder/access.acf" <<'ACF'
ASG(DEFAULT) { RULE(1, READ) RULE(1, WRITE, TRAPWRITE) }
ACF
cat >"$folder/ioc.py" <<'PY'
import sys
from concurrent.futures import ThreadPoolExecutor
from ctypes import CFUNCTYPE, POINTER, Structure, c_char_p, c_int, c_void_p

from epicscorelibs.ioc import dbCore
from softioc import builder, softioc


class Message(Structure):
    _fields_ = [("user", c_char_p), ("host", c_char_p), ("channel", c_void_p), ("private", c_void_p), ("type", c_int),
                ("count", c_int), ("data", c_void_p)]


Listener = CFUNCTYPE(None, POINTER(Message), c_int)


@Listener
def listen(message, after):
    if after:
        print("data given" if message.contents.data else "data NULL", flush=True)


class Dispatcher:
    def __init__(self):
        self.pool = ThreadPoolExecutor(1)

    def __call__(self, function, args=(), completion=None, completion_args=()):
        self.pool.submit(lambda: (function(*args), completion and completion(*completion_args)))


dbCore.asSetFilename(sys.argv[1].encode())
dbCore.asTrapWriteRegisterListener.argtypes = (Listener,)
dbCore.asTrapWriteRegisterListener.restype = c_void_p
dbCore.asTrapWriteRegisterListener(listen)
builder.SetDeviceName("trap")
builder.longOut("value", initial_value=0, always_update=True)
builder.LoadDatabase()
softioc.iocInit(Dispatcher())
print("up", flush=True)
sys.stdin.readline()
softioc.epicsExit(0)
PY
cat >"$folder/look.py" <<'PY'
import os
import subprocess
import sys

folder = sys.argv[1]
ports = {"EPICS_CA_SERVER_PORT": "53064", "EPICS_CAS_INTF_ADDR_LIST": "127.0.0.1", "EPICS_CA_ADDR_LIST": "127.0.0.1",
         "EPICS_CA_AUTO_ADDR_LIST": "NO", "EPICS_PVA_BROADCAST_PORT": "53076", "EPICS_PVA_SERVER_PORT": "53075",
         "EPICS_PVAS_INTF_ADDR_LIST": "127.0.0.1", "EPICS_PVA_ADDR_LIST": "127.0.0.1", "EPICS_PVA_AUTO_ADDR_LIST": "NO"}
os.environ.update(ports)
ioc = subprocess.Popen([sys.executable, f"{folder}/ioc.py", f"{folder}/access.acf"], stdin=subprocess.PIPE,
                       stdout=subprocess.PIPE, text=True)


def heard():
    for line in ioc.stdout:
        if line.strip() in ("up", "data given", "data NULL"):
            return line.strip()


assert heard() == "up"
import caproto.sync.client
from p4p.client.thread import Context

caproto.sync.client.write("trap:value", 1, notify=True, repeater=False, timeout=20)
ca = heard()
with Context("pva") as context:
    context.put("trap:value", 2, timeout=20)
pva = heard()
print(f"CA: {ca}\nPVA: {pva}")
ioc.stdin.close()
ioc.wait(20)
sys.exit(0 if (ca, pva) == ("data given", "data NULL") else 1)
PY
timeout 120 "$folder/venv/bin/python" "$folder/look.py" "$folder"
