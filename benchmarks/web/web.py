"""`ptychostream bench web`: source → PVA → IOC → the page's server → Chromium, each a process of its own.

Figures

- `ready_ms`: from the navigation to the page until its script is done, and until the first image is drawn.
- `images_hz`: images drawn per second while the stream runs. `shape`: of the last one.
- `latency_ms`: percentiles, over the frames, of the time from a frame's time stamp at the detector until the screen
  refresh after the first drawn image with this frame. The detector stamps a frame before it sends it, so this is not
  less than the time from the frame's arrival at the IOC.
- `lost`: frames sent less stitched. `cpu_cores`: of source, IOC, page's server and browser, from the first to the last
  sent frame. Where they add up to the machine's cores, the latency is that of a full machine.
- `browsers`: further clients, and the images that each of them got.
- `reconnects`, `memory_mib`: the resident memory of the page's server after each quarter of that many browsers that
  came, got an image, and went.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import platform
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np

from ptychostream.benchmarks.measured import Measured, Processor, say
from ptychostream.benchmarks.stream_source import Source, checked_shape
from ptychostream.benchmarks.web.chromium import Page, chromium
from ptychostream.demo.page import address_of
from ptychostream.demo.pvs import Pvs, until
from ptychostream.processes.hardware import cores, cpu_name
from ptychostream.processes.loopback import free_ports, loopback_environment

PREFIX = "bench:"
CHANNEL = "bench:det:Image"
START_S = 90.0
_SOURCE = "ptychostream.benchmarks.stream_source"
_WATCH = """
window.drawn = [];
document.addEventListener("drawn", ({ detail: { header } }) => {
  if (header.number === window.last) return;
  window.last = header.number;
  requestAnimationFrame((at) => window.drawn.push([performance.timeOrigin + at, header.number, header.seen,
    header.attributes.LastFrameId, header.attributes.FramesStitched, header.width, header.height]));
});
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `ptychostream bench web`."""
    parser.add_argument("--fps", type=float, default=2000.0, help="sent frames per second (default %(default)g)")
    parser.add_argument("--seconds", type=float, default=20.0, metavar="S", help="of the stream (default %(default)g)")
    parser.add_argument("--shape", default="128x128", metavar="HxW", help="shape of a frame (default %(default)s)")
    parser.add_argument("--image-rate", type=float, default=10.0, metavar="HZ", help="PhaseRate (default %(default)g)")
    parser.add_argument("--reconnects", type=int, default=200, metavar="N", help="browsers that come and go (200)")
    parser.add_argument("--browsers", type=int, default=0, metavar="N", help="further clients beside Chromium (none)")


def run(arguments: argparse.Namespace) -> int:
    """Measure and print. Returns 1 if a frame was lost."""
    with tempfile.TemporaryDirectory(prefix="ptychostream-bench-") as folder:
        report = asyncio.run(_measure(arguments, Path(folder)))
    words = f"--fps {arguments.fps:g} --seconds {arguments.seconds:g} --shape {arguments.shape}"
    report["command"] = f"ptychostream bench web {words} --image-rate {arguments.image_rate:g}"
    report["command"] += f" --browsers {arguments.browsers}" * bool(arguments.browsers)
    report["machine"] = {"cores": cores(), "cpu": cpu_name(), "python": platform.python_version()}
    print(json.dumps(report, indent=2))
    return 0 if report["lost"] == 0 else 1


async def _measure(arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    shape = checked_shape(arguments.shape, "uint16", arguments.seconds, "bench web")
    ports = free_ports(2)
    environment = loopback_environment([ports[0]], ports[1])
    ioc_words = ["ioc", "--prefix", PREFIX, "--input-pv", CHANNEL, "--engine", "none"]
    ioc_words += ["--frame-shape", f"{shape[0]}x{shape[1]}", "--dose-scale", str(1 / 65535)]
    source_words = Source(
        channel=CHANNEL, rate_hz=arguments.fps, frames=round(arguments.fps * arguments.seconds), shape=shape,
        dtype="uint16", wait_for=f"{PREFIX}Ready_RBV", timeout_s=START_S,
    )  # fmt: skip
    with ExitStack() as stack:
        ioc = stack.enter_context(Measured("ptychostream", ioc_words, folder / "ioc.log", environment))
        pvs = Pvs(PREFIX, environment)
        stack.callback(pvs.close)
        await asyncio.to_thread(until, lambda: pvs.value("ModelState_RBV") is not None, ioc, START_S, "the IOC")
        pvs.put("PhaseRate", arguments.image_rate)
        web_log = folder / "web.log"
        web = stack.enter_context(Measured("ptychostream", ["web", PREFIX, "--port", "0"], web_log, environment))
        address = await asyncio.to_thread(page_address, web)
        async with chromium() as page:
            say("the page is opened")
            ready = await until_ready(page, address)
            others = [asyncio.create_task(_browse(address)) for _ in range(arguments.browsers)]
            source = stack.enter_context(
                Measured(_SOURCE, [source_words.model_dump_json()], folder / "source.log",
                         environment)
            )  # fmt: skip
            say(f"{arguments.fps:g} frames/s for {arguments.seconds:g} s")
            browser = Processor(page.pid, family=True)
            measured: dict[str, Measured | Processor] = {"source": source, "ioc": ioc, "web": web, "browser": browser}
            sent = await asyncio.to_thread(_follow, source, (ioc, web), tuple(measured.values()), arguments.seconds)
            await asyncio.sleep(2.0)
            drawn = np.array(await page.run("window.drawn"), dtype=np.float64)
            stitched = int(pvs.get("FramesStitched_RBV")[0])
            for other in others:
                other.cancel()
            images = [got for got in await asyncio.gather(*others, return_exceptions=True) if isinstance(got, int)]
        memory = await _reconnects(address, web, arguments.reconnects)
        report = _figures(drawn, sent)
        report |= {
            "ready_ms": ready,
            "lost": sent["sent"] - stitched,
            "cpu_cores": {name: one.cores(sent["first"], sent["last"]) for name, one in measured.items()},
            "browsers": {"count": arguments.browsers, "images": images},
            "reconnects": arguments.reconnects,
            "memory_mib": memory,
        }
        return report


def page_address(web: Measured) -> str:
    """The address of the page. Raises the failure of its server where there is none in time."""
    if not (address := address_of(web, START_S)):
        raise web.failure()
    return address


async def until_ready(page: Page, address: str) -> dict[str, float]:
    """Milliseconds until the script is done and until the first image is drawn."""
    await page.command("Page.enable")
    await page.command("Page.bringToFront")
    await page.command("Emulation.setFocusEmulationEnabled", enabled=True)
    await page.command("Page.addScriptToEvaluateOnNewDocument", source=_WATCH)
    await page.command("Page.navigate", url=address)
    await page.until("document.documentElement?.dataset.ready", START_S, "the page's script")
    await page.until("window.drawn?.length", START_S, "the first image")
    first = "window.drawn[0][0] - performance.timeOrigin"
    script, image = await page.run("Number(document.documentElement.dataset.ready)"), await page.run(first)
    return {"script": script, "image": image}


def _follow(
    source: Measured, needed: tuple[Measured, ...], measured: tuple[Measured | Processor, ...], seconds: float
) -> dict[str, Any]:
    end = time.monotonic() + seconds + 2 * START_S
    while time.monotonic() < end:
        for one in measured:
            one.sample()
        for child in needed:
            if not child.running():
                raise child.failure()
        if found := [line for line in source.said() if "sent" in line]:
            return found[0]
        time.sleep(0.1)
    raise source.failure()


def _figures(drawn: np.ndarray[Any, Any], sent: dict[str, Any]) -> dict[str, Any]:
    """Rate and latency of the images that were drawn during the stream."""
    at_s, stitched = drawn[:, 0] / 1e3, drawn[:, 4]
    during = (at_s > sent["first"]) & (at_s <= sent["last"])
    # engine none stitches in the order of arrival: the image with n frames shows the frames 0 to n - 1
    first_image = np.searchsorted(stitched, np.arange(sent["sent"]) + 1)
    shown = first_image < len(stitched)
    stamps = sent["first"] + np.arange(sent["sent"]) * (sent["last"] - sent["first"]) / max(1, sent["sent"] - 1)
    late_ms = 1e3 * (at_s[first_image[shown]] - stamps[shown])
    p50, p95, p99 = (float(value) for value in np.percentile(late_ms, (50, 95, 99))) if shown.any() else 3 * (math.nan,)
    server_ms = 1e3 * (at_s - drawn[:, 2])[during]
    return {
        "sent": sent["sent"],
        "sent_hz": sent["rate_hz"],
        "images": int(during.sum()),
        "images_hz": float(during.sum() / (sent["last"] - sent["first"])),
        "shape": [int(drawn[-1, 6]), int(drawn[-1, 5])],
        "frames_shown": int(shown.sum()),
        "latency_ms": {"p50": p50, "p95": p95, "p99": p99},
        "server_to_screen_ms": {"p50": float(np.median(server_ms)), "p95": float(np.percentile(server_ms, 95))},
    }


async def _browse(address: str) -> int:
    """A client that takes every image until it is cancelled. Returns how many it got."""
    images = 0
    try:
        async with aiohttp.ClientSession() as session, session.ws_connect(f"{address}socket") as socket:
            await socket.send_json({"ask": "show", "ioc": PREFIX, "images": ["Phase"]})
            async for message in socket:
                if message.type is aiohttp.WSMsgType.BINARY:
                    images += 1
                    await socket.send_json({"ask": "drawn", "image": "Phase"})
    except asyncio.CancelledError:
        pass
    return images


async def _reconnects(address: str, web: Measured, count: int) -> list[float]:
    """Resident memory after each quarter of `count` browsers that come and go."""
    memory = []
    async with aiohttp.ClientSession() as session:
        for number in range(count):
            async with session.ws_connect(f"{address}socket") as socket:
                await socket.send_json({"ask": "show", "ioc": PREFIX, "images": ["Phase"]})
                while (await socket.receive(timeout=20)).type is not aiohttp.WSMsgType.BINARY:
                    continue
            if (number + 1) % max(1, count // 4) == 0:
                memory.append(web.resident_mib())
    return memory
