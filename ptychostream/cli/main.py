"""`ptychostream <command>`."""

from __future__ import annotations

import argparse
import importlib
import logging
import os
import re
import sys
from collections.abc import Sequence
from types import ModuleType
from typing import Any

from ptychostream import __version__
from ptychostream.cli.parts.logs import configure
from ptychostream.errors import PtychostreamError
from ptychostream.processes.stopping import interrupt_on_signals

COMMANDS = {
    "demo": "fetch, reconstruct, train and watch a real scan being stitched live",
    "ioc": "run the soft IOC beside the detector",
    "web": "serve a page for browsers that shows IOCs live",
    "cluster": "run several consumers of one stream, and the IOC that adds them up",
    "agent": "run the HPC agent: reconstruct, judge, train and push as scans complete",
    "beamline": "run the simulated beamline",
    "record": "record a PVA image stream to scan files",
    "replay": "stream a scan file as a detector would",
    "inspect": "say what a scan file or a live channel says of itself, what is assumed and what contradicts",
    "reconstruct": "reconstruct a scan file by ePIE",
    "train": "train PtychoNN on a reconstructed scan",
    "convert": "write any scan file that is read as one of our own, with its geometry",
    "export": "write a scan file, and its reconstruction, for another program",
    "infer": "run a scan file through a model, offline",
    "model": "list, inspect, push, roll back and collect models",
    "datasets": "list and fetch real scans",
    "bench": "measure the stream, the engines, the reconstruction and the training",
    "reproduce": "reproduce the results of Babu et al. 2023 on a simulated beamline",
    "generate": "write operator screens, the alarm tree and the archiver's list",
    "doctor": "say what this machine has, what is missing, and whether all is well with an IOC's configuration",
}

MODULES = {name: f"measuring.{name}" for name in ("bench", "reproduce")}
"""The modules of commands that lie in a room within this one."""


class _Parser(argparse.ArgumentParser):
    """Takes -1e-6 for a number, as do the parsers of its commands; Python's own does from 3.14 on."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._negative_number_matcher = re.compile(r"^-(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?$")


def build_parser(command: str | None) -> argparse.ArgumentParser:
    """The parser, with the arguments of `command` only."""
    parser = _Parser(prog="ptychostream", description="Real-time streaming ptychography at an EPICS beamline.")
    parser.add_argument("--version", action="version", version=f"ptychostream {__version__}")
    parser.add_argument("-v", "--verbose", action="store_true", help="log at debug level, with tracebacks")
    commands = parser.add_subparsers(dest="command", metavar="command", required=True)
    for name, text in COMMANDS.items():
        sub = commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
        if name == command:
            _module(name).add_arguments(sub)
    return parser


def _module(name: str) -> ModuleType:
    return importlib.import_module(f"ptychostream.cli.{MODULES.get(name, name)}")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; a PtychostreamError gives one line on stderr and status 2. Returns the exit status."""
    words = list(sys.argv[1:] if argv is None else argv)
    command = next((word for word in words if word in COMMANDS), None)
    arguments = build_parser(command).parse_args(words)
    configure(arguments.verbose)
    module = _module(arguments.command)
    try:
        with interrupt_on_signals():
            return int(module.run(arguments))
    except PtychostreamError as error:
        if arguments.verbose:
            logging.exception("failed")
        print(f"ptychostream {arguments.command}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"ptychostream {arguments.command}: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
