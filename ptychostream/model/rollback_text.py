"""Write and read the text with which the edge reports a rollback. Pure functions."""

from __future__ import annotations

import re
from typing import NamedTuple

BY_OPERATOR = "by an operator"
_WORDS = re.compile(r"went back from ([0-9a-f]{64}) to ([0-9a-f]{64}): (.*)", re.DOTALL)


class WentBack(NamedTuple):
    """A rollback: sha256 of the model it left, sha256 of the model it went back to, and the reason."""

    left: str
    back_to: str
    reason: str


def went_back(left: str, back_to: str, reason: str) -> str:
    """The text of RollbackMessage_RBV. Models and reason are in one record, so that they belong to one moment."""
    return f"went back from {left} to {back_to}: {reason}"


def read_went_back(text: str) -> WentBack | None:
    """The rollback that `went_back` wrote, or None if the text is another one."""
    found = _WORDS.fullmatch(text)
    return WentBack(*found.groups()) if found else None
