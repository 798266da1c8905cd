"""`ptychostream bench NAME`: see `BENCHMARKS`."""

from __future__ import annotations

import argparse
import importlib
from types import ModuleType
from typing import Any

BENCHMARKS = {
    "stream": "source → PVA → IOC → client, each a process of its own: what arrives, how late, at what cost",
    "positions": "the join of frames with positions: time a frame, memory, what a PandABox's 100 kHz cost",
    "web": "source → PVA → IOC → page's server → Chromium: images per second, latency to the screen, memory",
    "record": "source → PVA → scan file: what is written, at what cost",
    "inference": "every engine that is here, side by side",
    "soak": "the stream under random faults, with clients: nothing lost uncounted, memory flat, all recovered",
    "limits": "broken and hostile input at each door: peak of memory, time, what was said",
    "kills": "recorder, IOC, agent, training and cluster killed at random moments: nothing that was done is lost",
    "short-scans": "thousands of scans of a few frames, 40 a second, each saved to a file: none lost",
    "reconstruction": "ePIE: seconds per iteration, and the error reached",
    "warm-start": "ePIE from the live canvas and the last probe: iterations to the error of a flat start",
    "sigma": "the error of the stitched phase beside the true one, on an area that the network never saw; its cost",
    "adaptive": "SSIM of adaptive scans by the number of their points, beside evenly spread points and the full scan",
    "gpu": "everything that wants a GPU, by one command on a machine that has one: engines, ePIE, training, TensorRT",
    "training": "training from the corpus on disk against a plain loop in memory; the memory that a large corpus takes",
    "agent": "the agent's loop over thousands of scans with steps that take no time: time a scan, memory, disk",
}


class _LazyParser(argparse.ArgumentParser):
    """A parser that imports its benchmark only when it is used, so that no benchmark needs another's packages."""

    def load(self) -> None:
        """Add the options of the benchmark."""
        _module(self.prog.split()[-1]).add_arguments(self)

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        self.load()
        return super().parse_known_args(args, namespace)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    benchmarks = parser.add_subparsers(dest="benchmark", metavar="benchmark", required=True, parser_class=_LazyParser)
    for name, text in BENCHMARKS.items():
        benchmarks.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")


def run(arguments: argparse.Namespace) -> int:
    return int(_module(arguments.benchmark).run(arguments))


def _module(name: str) -> ModuleType:
    rooms = {
        "adaptive": "adaptive.adaptive",
        "sigma": "sigma.sigma",
        "soak": "soak.soak",
        "limits": "limits.limits",
        "kills": "kills.kills",
        "web": "web.web",
        "agent": "soak.agent_loop",
        "short-scans": "soak.short_scans",
    }
    inner = rooms.get(name, name.replace("-", "_"))
    return importlib.import_module(f"ptychostream.benchmarks.{inner}")
