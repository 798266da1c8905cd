"""The attributes that name a scan and mark its end: are they there, and is the mark a level?"""

from __future__ import annotations

from collections.abc import Iterator

from ptychostream.doctor.finding import Finding, fail, ok, warn
from ptychostream.doctor.stream import SeenStream
from ptychostream.frames.idle import ends_scan
from ptychostream.frames.scan_id import id_text
from ptychostream.ioc.config.settings import IocSettings

_LEVEL = 3
"""So many frames in a row with the mark are a level, and no mark of a last frame."""


def check_marks(seen: SeenStream, settings: IocSettings) -> Iterator[Finding]:
    """The findings where frames name their scan."""
    if settings.scan.boundary != "attribute" or not seen.images:
        return
    name, end = settings.input.scan_attribute, settings.input.end_attribute
    if name:
        yield _named(seen, name)
    if end:
        yield _ended(seen, end)


def _named(seen: SeenStream, name: str) -> Finding:
    values = [frame.attributes.get(name) for frame in seen.images]
    missing = sum(value is None for value in values)
    if missing:
        what = f"{missing} of {len(values)} frames have no attribute {name}: all scans go onto one canvas"
        return warn("scan id", what, f'add {name} to the attributes file, or set scan.boundary to "pv" or "gap"')
    scans = list(dict.fromkeys(id_text(value) for value in values))
    return ok("scan id", f"{name} is {', '.join(scans[-3:])}")


def _ended(seen: SeenStream, end: str) -> Finding:
    marks = [frame.attributes.get(end) for frame in seen.images]
    if all(mark is None for mark in marks):
        what = f"frames have no attribute {end}: nothing says that a scan is over"
        return warn("end of scan", what, f"add {end} to the attributes file, or set scan.active_pv")
    set_, longest = 0, 0
    for mark in marks:
        set_ = set_ + 1 if ends_scan(mark) else 0
        longest = max(longest, set_)
    if longest >= min(_LEVEL, len(marks)) and longest > 1:
        what = f"{end} is set in {longest} frames in a row: it is a level that stays, and marks no last frame"
        return fail("end of scan", what, f"set {end} back to 0 when a scan begins, or use scan.active_pv")
    return ok("end of scan", f"{end} is {'set in the last frame' if longest else 'not set'}")
