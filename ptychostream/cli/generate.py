"""`ptychostream generate`: operator screens, alarm tree and archiver list."""

from __future__ import annotations

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", type=Path, help="where to write; files of these names are replaced")
    parser.add_argument(
        "--prefix", default="ptycho:NN1:",
        help="of the IOC's records, in the alarm tree and the archiver list (default ptycho:NN1:); screens have macros",
    )  # fmt: skip


def run(arguments: argparse.Namespace) -> int:
    from ptychostream.opi.files import files
    from ptychostream.storage.atomic import write_bytes_atomic

    arguments.folder.mkdir(parents=True, exist_ok=True)
    for name, text in files(arguments.prefix).items():
        write_bytes_atomic(arguments.folder / name, text.encode())
        print(arguments.folder / name)
    return 0
