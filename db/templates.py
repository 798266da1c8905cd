"""The templates of this folder: where they are, which make a group, and the records in their text."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

FOLDER = Path(__file__).parent
GROUPS = (
    "plugin", "accounting", "dropped", "timing", "stages", "decimation", "model", "canary", "quality", "scan",
    "positions", "canvases", "images", "refine", "agent", "health",
)  # fmt: skip
"""Groups of records that every IOC serves."""
STATES = ("ZR", "ON", "TW", "TH", "FR", "FV", "SX", "SV", "EI", "NI", "TE", "EL", "TV", "TT", "FT", "FF")
"""EPICS's abbreviations of a choice's states."""

_RECORD = re.compile(r'^record\((\w+), *"(?:\$\(\w+\))+([^"]+)"\) *\{(.*?)^\}', re.MULTILINE | re.DOTALL)
_FIELD = re.compile(r'\bfield\((\w+), *"((?:[^"\\]|\\.)*)"\)')
_INFO = re.compile(r'\binfo\("?([^,"]+)"?, *"([^"]*)"\)')


def paths(group: str) -> list[Path]:
    """The files of a group: made from declarations, and written by hand."""
    names = (f"{group}_declared.template", f"{group}.template")
    return [path for name in names if (path := FOLDER / name).exists()]


def parts(text: str) -> Iterator[tuple[str, str, dict[str, str], dict[str, str]]]:
    """Type, name without the macros before it, fields and info tags of each record of a template."""
    for kind, name, body in _RECORD.findall(text):
        yield kind, name, dict(_FIELD.findall(body)), dict(_INFO.findall(body))
