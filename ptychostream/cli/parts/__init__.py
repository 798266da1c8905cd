"""Parts of commands: options that several have, actions of one, the display of their progress."""

from __future__ import annotations

import argparse
import math
import re


def finite(text: str) -> float:
    """The type of an option that takes a number. NaN is refused: comparisons with it are always false."""
    try:
        value = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number") from None
    if not math.isfinite(value):
        raise argparse.ArgumentTypeError(f"{text!r} is not a finite number")
    return value


_LENGTH = re.compile(r"([-+.0-9]+(?:[eE][-+]?[0-9]+)?)\s*([^\s.0-9+-]+)")


def length_m(text: str) -> float:
    """The type of an option that takes a length: metres, or a number with its unit, such as 8nm or 4.65Å."""
    from ptychostream.errors import UnitError
    from ptychostream.statements.units import factor

    found = _LENGTH.fullmatch(text.strip())
    if found is None:
        return finite(text)
    try:
        return finite(found[1]) * factor(found[2], "length", text)
    except UnitError as error:
        raise argparse.ArgumentTypeError(f"{text!r}: {error.what}") from None
