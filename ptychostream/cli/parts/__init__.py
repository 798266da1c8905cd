"""Parts of commands: options that several have, actions of one, the display of their progress."""

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
