"""`ptychostream reproduce`: the results of Babu et al. 2023 on a simulated beamline."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from ptychostream.cli import finite

RESULTS = {
    "fig2": "the stitched phase beside ePIE",
    "fig3": "accuracy by the overlap of the frames",
    "fig4": "exposures ten times shorter than in training",
    "table1": "inference time by the batch",
    "table2": "inference of one frame, by the fastest engine and by torch",
    "s1": "fewer photons, in training and in the test",
    "fig5": "the error as training goes on with more scans",
}
"""The results that exist; "all" makes them in this order."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    from ptychostream.benchmarks.paper.scale import SCALES

    parser.add_argument(
        "result",
        choices=(*RESULTS, "all"),
        help="; ".join(f"{name}: {text}" for name, text in RESULTS.items()) + "; all of them",
    )
    parser.add_argument(
        "--scale",
        choices=tuple(SCALES),
        default="quick",
        help="quick: at most 15 minutes a result on two cores, with lower lines; paper: as in the paper, days on a "
        "CPU; tiny: seconds, its figures say nothing (default %(default)s)",
    )
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="default %(default)s")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder of this run, new or to continue")
    parser.add_argument("--seed", type=int, default=1, metavar="N", help="default %(default)s")
    parser.add_argument(
        "--minutes", type=finite, metavar="M", help="begin nothing after M minutes; the same command continues later"
    )


def run(arguments: argparse.Namespace) -> int:
    from ptychostream.benchmarks.paper.reproduce import reproduce

    def say(text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    names = list(RESULTS) if arguments.result == "all" else [arguments.result]
    command = f"ptychostream reproduce {arguments.result} --scale {arguments.scale} --out {arguments.out.name}"
    return reproduce(
        names,
        arguments.scale,
        arguments.device,
        arguments.out,
        seed=arguments.seed,
        minutes=arguments.minutes,
        command=command,
        say=say,
    )
