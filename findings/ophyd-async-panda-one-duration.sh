#!/usr/bin/env bash
# ophyd-async 0.21.3 with scanspec 1.0.0: a PandABox that triggers a detector along a ScanSpec (ScanSpecSeqTableFlyableLogic) takes the
# duration of the scan's first point for all points. scanspec has a name for such specs, VARIABLE_DURATION, and the PMAC trajectory of
# ophyd-async moves by each point's own (read in its source), so frames and axes run apart from the second region on. Nothing is raised.
# The times are also cut, not rounded, to whole microseconds: 0.3 s with 0.1 s between frames comes every 299,999 µs.
# Seen 2026-11-30: "0.1 s: 3 x 90000 + 10000 us", "0.5 s: 3 x 490000 + 10000 us", and for one after the other
# "VARIABLE_DURATION s: 3 x 90000 + 10000 us, 3 x 90000 + 10000 us"; "0.3 s: 3 x 199999 + 100000 us".
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet 'ophyd-async[ca,pva]==0.21.3' scanspec==1.0.0 p4p==4.3.0 aioca==2.1 numpy
cat >"$folder/look.py" <<'PY'
import asyncio

from ophyd_async.core import StaticPathProvider, UUIDFilenameProvider, init_devices
from ophyd_async.epics.motor import Motor
from ophyd_async.fastcs.panda import HDFPanda, ScanSpecInfo, ScanSpecSeqTableFlyableLogic
from scanspec.specs import Concat, Fly, Line


async def main():
    async with init_devices(mock=True):
        panda = HDFPanda("BOX:", StaticPathProvider(UUIDFilenameProvider(), "."))
        x = Motor("X:")
    fast, slow = Fly(0.1 @ Line(x, 0, 1, 3)), Fly(0.5 @ Line(x, 3, 4, 3))
    logic = ScanSpecSeqTableFlyableLogic(panda.seq[1])
    for spec, dead in ((fast, 0.01), (slow, 0.01), (Concat(fast, slow), 0.01), (Fly(0.3 @ Line(x, 0, 1, 3)), 0.1)):
        await logic.on_prepare(ScanSpecInfo(spec=spec, deadtime=dead))
        table = await panda.seq[1].table.get_value()
        rows = zip(table.repeats, table.time1, table.time2)
        print(f"{spec.duration()} s:", ", ".join(f"{n} x {on} + {off} us" for n, on, off in rows if on))


asyncio.run(main())
PY
"$folder/venv/bin/python" -W ignore "$folder/look.py" | tee "$folder/seen"
printf '%s\n' "0.1 s: 3 x 90000 + 10000 us" "0.5 s: 3 x 490000 + 10000 us" \
    "VARIABLE_DURATION s: 3 x 90000 + 10000 us, 3 x 90000 + 10000 us" "0.3 s: 3 x 199999 + 100000 us" | diff "$folder/seen" -
