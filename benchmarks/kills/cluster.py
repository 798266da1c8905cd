"""Processes of a cluster killed by turns: canvases that the collector named are whole, and all are back each time."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import time
from pathlib import Path

from ptychostream.benchmarks.kills.ioc import whole
from ptychostream.benchmarks.kills.place import CHANNEL, PREFIX, START_S, Outcome, Place
from ptychostream.benchmarks.kills.scans import PIXEL_M, SIDE

_CONFIG = """
prefix = "{prefix}"
log_dir = {logs!r}
[source]
channel = "{channel}"
[consumers]
count = 2
group = "kills"
dead_after_s = 3
[consumer]
state_s = 0.3
engine = {{ name = "None", frame_shape = [{side}, {side}], pixel_m = {pixel_m} }}
[ioc.save]
directory = {canvases!r}
automatic = true
delay_s = 0.1
"""


def run(place: Place, kills: int) -> Outcome:
    """Kill a consumer or the collector so often, while scans go on."""
    outcome, canvases = Outcome(), place.folder / "canvases"
    canvases.mkdir()
    config = place.folder / "cluster.toml"
    paths = {"logs": str(place.folder / "cluster-logs"), "canvases": str(canvases)}
    text = _CONFIG.format(prefix=PREFIX, channel=CHANNEL, side=SIDE, pixel_m=PIXEL_M, **paths)
    config.write_text(text, encoding="utf-8")
    any_port = {"EPICS_PVAS_SERVER_PORT": "0", "EPICS_PVA_SERVER_PORT": "0"}
    named: set[str] = set()
    with place.detector(), contextlib.closing(place.pvs()) as pvs:
        cluster = place.victim("ptychostream", ["cluster", str(config)], **any_port)
        with cluster:

            def back() -> bool:
                return pvs.value("ConsumersLive_RBV") == 2 and pvs.value("ModelState_RBV") == 4

            for _ in range(kills):
                place.wait(back, cluster, START_S, "both consumers and the collector are back")
                log = cluster.log_path.read_text(encoding="utf-8", errors="replace")
                newest = dict(re.findall(r"(collector|consumer \d+): started, process (\d+)", log))
                end = time.monotonic() + place.chance.uniform(0.2, 4.0)
                while time.monotonic() < end:
                    with contextlib.suppress(TimeoutError):
                        named.add(str(pvs.get("LastSavedFile_RBV", timeout_s=0.5)[0]))
                    time.sleep(0.05)
                os.kill(int(newest[place.chance.choice(sorted(newest))]), signal.SIGKILL)
                outcome.kills += 1
                time.sleep(0.5)  # until its death is known
            place.wait(back, cluster, START_S, "both consumers and the collector are back")
            error = pvs.get("AccountingError_RBV")[0]
            outcome.check(f"the law of the accounting: {error}", lambda: error == 0)
    for path in sorted(named - {""}):
        outcome.check(path, lambda path=path: whole(Path(path)))
    return outcome
