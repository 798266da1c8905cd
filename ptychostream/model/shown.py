"""Texts from elsewhere in messages and logs: on one line, escaped and cut."""

from __future__ import annotations

LONGEST = 60


def shown(text: str, longest: int = LONGEST) -> str:
    """The text in quotes: what is not printable is escaped, and what is longer than `longest` is cut."""
    return repr(text if len(text) <= longest else f"{text[:longest]}…")


def plain(text: str, longest: int = LONGEST) -> str:
    """As `shown`, without quotes."""
    return shown(text, longest)[1:-1]
