"""A command of one's own: how much of a scan's frames overlaps.

In the tree, this is ptychostream/cli/overlap.py, and COMMANDS in ptychostream/cli/main.py has a line for it. What a
command needs is imported inside `run`, so that `ptychostream --help` stays quick.
"""

from __future__ import annotations

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options."""
    parser.add_argument("scan", help="scan file")
    parser.add_argument("--beam", type=float, required=True, metavar="M", help="diameter of the beam in metres")


def run(arguments: argparse.Namespace) -> int:
    """Print the overlap of neighbouring frames; the exit status is returned."""
    import numpy as np

    from ptychostream import open_scan
    from ptychostream.imaging.geometry import overlap

    with open_scan(arguments.scan) as scan:
        steps = np.hypot(*np.diff(scan.positions_m, axis=0).T)
    print(f"median step {np.nanmedian(steps):.3g} m, overlap {overlap(float(np.nanmedian(steps)), arguments.beam):.2f}")
    return 0
