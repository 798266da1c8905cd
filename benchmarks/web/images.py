"""`python -m ptychostream.benchmarks.web.images`: images of any size in the browser, without an IOC behind them.

A PVA server of this process posts images of a phase with noise, all pixels of which change. The figures are the images
that Chromium draws per second, and the time from the post to the screen refresh after the drawing.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from p4p.nt import NTScalar
from p4p.server import Server, StaticProvider
from p4p.server.raw import SharedPV

from ptychostream.benchmarks.measured import Measured
from ptychostream.benchmarks.web.chromium import chromium
from ptychostream.benchmarks.web.web import page_address, until_ready
from ptychostream.processes.hardware import cores, cpu_name
from ptychostream.processes.loopback import free_ports, loopback_environment
from ptychostream.pva.channel_list import IMAGES, list_channel
from ptychostream.pva.ntndarray import build

PREFIX = "images:"


async def measure(side: int, rate_hz: float, seconds: float) -> dict[str, Any]:
    """Post images of `side` × `side` pixels, and see what the browser makes of them."""
    ports = free_ports(2)
    environment = loopback_environment([ports[0]], ports[1])
    row, column = np.mgrid[:side, :side] / 30
    noise = np.random.default_rng(1).normal(scale=0.01, size=(8, side, side))
    phases = (np.sin(row) * np.cos(column) + noise).astype(np.float32)
    posted: dict[int, float] = {}

    def image(number: int) -> Any:
        posted[number] = time.time()
        return build(phases[number % 8], number, posted[number], {}, descriptor="Phase", units="rad")

    phase = SharedPV(initial=image(1))
    provider = StaticProvider("images")
    channels = {"HEARTBEAT": SharedPV(initial=NTScalar("d", display=True).wrap(0.0)), "Phase": phase}
    for name, channel in {**channels, IMAGES: list_channel(["Phase"])}.items():
        provider.add(PREFIX + name, channel)
    conf = {name: value for name, value in environment.items() if name.startswith("EPICS_PVA")}
    server = Server([provider], conf=conf, useenv=False)
    with tempfile.TemporaryDirectory(prefix="ptychostream-bench-") as folder:
        log = Path(folder) / "web.log"
        with Measured("ptychostream", ["web", PREFIX, "--port", "0"], log, environment) as web:
            assert isinstance(web, Measured)
            address = await asyncio.to_thread(page_address, web)
            async with chromium() as page:
                ready = await until_ready(page, address)
                begin = time.time()
                web.sample()
                number = 1
                while time.time() - begin < seconds:
                    number += 1
                    phase.post(image(number))
                    await asyncio.sleep(max(0.0, begin + (number - 1) / rate_hz - time.time()))
                end = time.time()
                web.sample()
                await asyncio.sleep(1.0)
                drawn = await page.run("window.drawn")
    server.stop()
    during = [(at / 1e3, int(found)) for at, found, *_ in drawn if begin < at / 1e3 <= end and found > 1]
    late_ms = [1e3 * (at - posted[found]) for at, found in during]
    p50, p95 = (float(value) for value in np.percentile(late_ms, (50, 95)))
    return {
        "side": side,
        "posted_hz": (number - 1) / (end - begin),
        "drawn_hz": len(during) / (end - begin),
        "post_to_screen_ms": {"p50": p50, "p95": p95},
        "ready_ms": ready,
        "web_cores": web.cores(begin, end),
        "load": os.getloadavg()[0],
        "machine": {"cores": cores(), "cpu": cpu_name(), "python": platform.python_version()},
    }


def main() -> int:
    """Measure and print JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--side", type=int, default=512, help="pixels (default %(default)s)")
    parser.add_argument("--rate", type=float, default=20.0, help="images posted per second (default %(default)g)")
    parser.add_argument("--seconds", type=float, default=10.0, help="duration (default %(default)g)")
    arguments = parser.parse_args()
    print(json.dumps(asyncio.run(measure(arguments.side, arguments.rate, arguments.seconds)), indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
