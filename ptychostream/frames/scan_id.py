"""A scan's id as text, whether a frame's attribute or a PV gives it."""

from __future__ import annotations

import math
from typing import Any


def id_text(value: object) -> str:
    """A text, a number, an enumeration's choice or characters as text, without blanks around it.

    A whole number has no decimal point, whatever its type: an id that a record of type double holds is "247", as it is
    for a detector that sends an integer. None, and a number that is not finite, are the empty text.
    """
    value = plain(value)
    if isinstance(value, float) and not math.isfinite(value):
        return ""  # the attribute of a PV that was not connected
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return "" if value is None else str(value).strip()


def plain(value: Any) -> Any:
    """A PV's value as a number or text: the choice of an enumeration, the text of a waveform of characters."""
    if isinstance(value, dict):  # an enumeration
        choices, index = value.get("choices", []), int(value.get("index", 0))
        return choices[index] if index < len(choices) else index
    if isinstance(value, (list, tuple)) or hasattr(value, "tobytes"):  # numpy's scalars have tobytes, too
        return _characters(value) if getattr(value, "ndim", 1) else value.item()
    return value


def _characters(value: Any) -> str:
    return bytes(int(code) & 0xFF for code in value).split(b"\0")[0].decode(errors="replace")
