"""The command line. Each command is a module of this package, which is imported when the command is used.

A command module has `add_arguments(parser)` and `run(arguments) -> int`. What it needs is imported in `run`, so that
`ptychostream --help` stays fast. Its one line of help is in `ptychostream.cli.main.COMMANDS`.
"""

from __future__ import annotations

import argparse
import math


def finite(text: str) -> float:
    """The type of an option that takes a number. NaN is refused: comparisons with it are always false."""
    try:
        value = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number") from None
    if not math.isfinite(value):
        raise argparse.ArgumentTypeError(f"{text!r} is not a finite number")
    return value
