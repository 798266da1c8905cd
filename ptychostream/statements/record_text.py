"""A text as an EPICS record holds it."""

from __future__ import annotations

STRING_BYTES = 39
"""Bytes of an EPICS string; longer texts are waveforms of characters."""


def clip(text: str, most: int = STRING_BYTES) -> bytes:
    """UTF-8, cut to at most `most` bytes at a character; the end of a text that was cut says so.

    The IOC and the agent write their records with it. Who compares a text with a record clips the text first.
    """
    data = text.encode(errors="replace")
    if len(data) <= most:
        return data
    return data[: most - 3].decode(errors="ignore").encode() + b"..."
