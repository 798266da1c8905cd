"""`ptychostream convert`: a scan file of any layout, or a bare array, becomes a scan file of our own."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from ptychostream.cli.parts.scan_arguments import add_scan_arguments


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("scan", type=Path, help="scan file of any layout that is read, or an array (.npy, .npz, HDF5)")
    parser.add_argument("output", type=Path, help="the scan file (NeXus, as NDFileHDF5 has it)")
    parser.add_argument("--json", action="store_true", help="print a summary as JSON")
    add_scan_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    from ptychostream.cli.parts.scan_arguments import scan_options
    from ptychostream.errors import ConfigError
    from ptychostream.imaging.geometry import object_pixel_m
    from ptychostream.scans.inspection import taken
    from ptychostream.scans.scan_probe import open_probed
    from ptychostream.scans.scan_writer import write_scan
    from ptychostream.statements.radiation import beam_in_words
    from ptychostream.statements.units import length_in_words
    from ptychostream.storage.atomic import check_can_be_written

    output: Path = arguments.output
    check_can_be_written(output)
    if output.exists() and arguments.scan.exists() and output.samefile(arguments.scan):
        raise ConfigError("the scan would be replaced by itself", where=str(output), remedy="give another file")
    with open_probed(arguments.scan, scan_options(arguments)) as scan:
        write_scan(output, scan)
        width = scan.counts.shape[2]
        pixel_m = object_pixel_m(scan.energy_ev, scan.distance_m, scan.detector_pixel_m, width, scan.radiation)
        summary = {"scan": scan.scan_id, "frames": len(scan), "written": str(output), "object_pixel_m": pixel_m}
        rules = taken(scan)
    if arguments.json:
        print(json.dumps(summary | {"rules": rules}, indent=2))
        return 0
    print(f"{len(scan)} frames of {scan.scan_id} → {output}")
    print(f"{beam_in_words(scan.energy_ev, scan.radiation)}, object pixel {length_in_words(pixel_m)}")
    for rule in rules:
        print(rule)
    return 0
