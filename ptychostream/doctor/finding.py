"""What a check has found."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum


class Level(Enum):
    """How bad a finding is."""

    OK = "OK"
    WARN = "WARN"
    FAIL = "FAIL"


@dataclass(frozen=True)
class Finding:
    """One line of the report.

    Attributes
    ----------
    check
        Name of the check.
    level
        `WARN`: it may be meant so. `FAIL`: no right picture comes of it.
    what
        What was found, with the file or PV.
    remedy
        What the user can do; empty where nothing need be done.
    """

    check: str
    level: Level
    what: str
    remedy: str = ""


def ok(check: str, what: str) -> Finding:
    """A finding that is as it should be."""
    return Finding(check, Level.OK, what)


def warn(check: str, what: str, remedy: str) -> Finding:
    """A finding that may be meant so."""
    return Finding(check, Level.WARN, what, remedy)


def fail(check: str, what: str, remedy: str) -> Finding:
    """A finding that keeps right pictures from coming."""
    return Finding(check, Level.FAIL, what, remedy)


def exit_code(findings: Iterable[Finding]) -> int:
    """1 if anything fails, else 0."""
    return int(any(one.level is Level.FAIL for one in findings))
