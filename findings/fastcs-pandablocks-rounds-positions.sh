#!/usr/bin/env bash
# fastcs-pandablocks 0.2.2 (fastcs 0.14.4), the IOC of a PandABox: SCALE, OFFSET and SCALED of an encoder are FastCS floats of the default
# precision, and FastCS rounds a value to it, 2 decimals, not only what is shown. So SCALED moves in steps of 0.01, in mm 10 µm, whatever
# the encoder resolves. A scale that a client writes is rounded on its way to the box: 0.00005 mm a count becomes SCALE=0.0, and every
# scaled position that the box captures from then on is the offset. Before the first change SCALED is not rounded, which hides it.
# Seen 2026-11-30: "scaled at the start 12.3456", "scaled after one count 12.35, true 12.3457", "sent to the box: INENC.VAL.SCALE=0.0".
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet fastcs-pandablocks==0.2.2 fastcs==0.14.4 pandablocks==0.10.4 p4p==4.3.0 softioc==4.7.2 \
    epicscorelibs==7.0.10.99.0.2 pvxslibs==1.5.3
cat >"$folder/look.py" <<'PY'
import asyncio

from fastcs_pandablocks.panda.panda_controller import PandaController, PandaControllerSettings
from loguru import logger

HOST = "127.0.0.77"  # a loopback address of its own: a PandABox has fixed ports
FIELDS = {"INENC.VAL": "123456", "INENC.VAL.SCALE": "0.0001", "INENC.VAL.OFFSET": "0", "INENC.VAL.UNITS": "mm",
          "INENC.VAL.CAPTURE": "No"}
ANSWERS = {
    "*IDN?": "OK =PandA SW: 4.1 FPGA: 4.1 0 0 rootfs: none",
    "*BLOCKS?": "!INENC 1\n!PCAP 1\n.",
    "*DESC.INENC?": "OK =Encoder input",
    "*DESC.PCAP?": "OK =Position capture",
    "INENC.*?": "!VAL 0 pos_out\n.",
    "PCAP.*?": ".",
    "*DESC.INENC.VAL?": "OK =Current position",
    "*ENUMS.INENC.VAL.CAPTURE?": "!No\n!Value\n.",
}
changed, written = set(FIELDS), []
logger.remove()


async def answer(reader, writer):
    """The control port of a box with one encoder of 0.1 µm a count."""
    while line := (await reader.readline()).decode().strip():
        text = "OK"
        if line == "*CHANGES?":
            text = "\n".join([*(f"!{name}={FIELDS[name]}" for name in sorted(changed)), "."])
            changed.clear()
        elif line.endswith("?"):
            text = ANSWERS[line]
        else:
            written.append(line)
        writer.write(f"{text}\n".encode())
    writer.close()


async def main():
    server = await asyncio.start_server(answer, HOST, 8888)
    controller = PandaController(PandaControllerSettings(HOST))
    await controller.initialise()
    controller.post_initialise()
    controller.create_api_and_tasks()
    encoder = controller.sub_controllers["inenc"].attributes
    print(f"scaled at the start {encoder['val_scaled'].get():.4f}")
    FIELDS["INENC.VAL"] = "123457"
    changed.add("INENC.VAL")
    await controller.update()
    print(f"scaled after one count {encoder['val_scaled'].get()}, true {123457 * 0.0001:.4f}")
    await encoder["val_scale"].put(0.00005)
    print("sent to the box:", *written)
    await controller._raw_panda.disconnect()
    server.close()


asyncio.run(asyncio.wait_for(main(), 60))
PY
"$folder/venv/bin/python" "$folder/look.py" | tee "$folder/seen"
printf '%s\n' "scaled at the start 12.3456" "scaled after one count 12.35, true 12.3457" "sent to the box: INENC.VAL.SCALE=0.0" | diff "$folder/seen" -
