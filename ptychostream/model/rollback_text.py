"""The words in which the edge says that it went back from a model, and their reading. Pure."""

from __future__ import annotations

import re
from typing import NamedTuple

BY_OPERATOR = "by an operator"
_WORDS = re.compile(r"went back from ([0-9a-f]{64}) to ([0-9a-f]{64}): (.*)", re.DOTALL)


class WentBack(NamedTuple):
    """From which model to which, by their sha256, and why."""

    left: str
    back_to: str
    reason: str


def went_back(left: str, back_to: str, reason: str) -> str:
    """RollbackMessage_RBV after the edge went back: in one record, so that models and reason are of one moment."""
    return f"went back from {left} to {back_to}: {reason}"


def read_went_back(text: str) -> WentBack | None:
    """What `went_back` said; None where the record says something else."""
    found = _WORDS.fullmatch(text)
    return WentBack(*found.groups()) if found else None
