"""`ptychostream export`: a scan file, and its reconstruction, in the files of another program."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from ptychostream.cli.parts.scan_arguments import add_scan_arguments

FORMATS = ("nexus", "cxi", "ptychi", "ptychodus")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "scan", type=Path, help="scan file of any layout that is read, or a folder of one file a pattern"
    )
    parser.add_argument("--to", choices=FORMATS, required=True, help="program or format to write for")
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        required=True,
        metavar="FILE",
        help="the file; with ptychi NAME makes NAME_dp.hdf5 and NAME_para.hdf5; with ptychodus .npz or .h5 decides",
    )
    parser.add_argument(
        "--reconstruction", type=Path, metavar="FILE", help="its object and probe (ptychi, and needed by ptychodus)"
    )
    parser.add_argument("--json", action="store_true", help="print a summary as JSON")
    add_scan_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    from ptychostream.cli.parts.scan_arguments import scan_options
    from ptychostream.errors import ConfigError
    from ptychostream.scans.exports.cxi import write_cxi
    from ptychostream.scans.exports.ptychi import pair_of, write_pair
    from ptychostream.scans.exports.ptychodus import write_product
    from ptychostream.scans.reconstruction_file import read_reconstruction
    from ptychostream.scans.scan_probe import open_probed
    from ptychostream.scans.scan_writer import write_scan
    from ptychostream.storage.atomic import check_can_be_written

    output: Path = arguments.output
    written = list(pair_of(output)) if arguments.to == "ptychi" else [output]
    check_can_be_written(*written)
    if arguments.to == "ptychodus" and arguments.reconstruction is None:
        what = "a product of ptychodus is a reconstruction"
        raise ConfigError(
            what, where="--to ptychodus", remedy="give one with --reconstruction; `--to cxi` has the patterns"
        )
    reconstruction = read_reconstruction(arguments.reconstruction) if arguments.reconstruction else None
    with open_probed(arguments.scan, scan_options(arguments)) as scan:
        if arguments.to == "nexus":
            write_scan(output, scan)
        elif arguments.to == "cxi":
            write_cxi(output, scan)
        elif arguments.to == "ptychi":
            write_pair(output, scan, reconstruction)
        elif reconstruction is not None:
            write_product(output, scan, reconstruction)
        summary = {
            "scan": scan.scan_id,
            "frames": len(scan),
            "to": arguments.to,
            "written": [str(path) for path in written],
        }
    if arguments.json:
        print(json.dumps(summary, indent=2))
    else:
        print(f"{summary['frames']} frames of {summary['scan']} → {', '.join(map(str, written))}")
    return 0
