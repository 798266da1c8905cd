"""The texts of options that follow from declared settings."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ptychostream.config import Declared


def help_of(one: Declared) -> str:
    """Text, choices and default of an option."""
    text = one.setting.help or one.setting.about
    if text[1:2].islower():
        text = text[0].lower() + text[1:]
    if one.choices:
        text += f": {', '.join(map(str, one.choices[:-1]))} or {one.choices[-1]}"
    default = one.field.default
    if isinstance(default, tuple):
        default = "x".join(map(str, default))
    return f"{text} ({default})".replace("%", "%%") if default not in (None, "", False) else text.replace("%", "%%")
