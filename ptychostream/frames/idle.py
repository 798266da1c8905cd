"""Read the value of a PV or an attribute that tells whether a scan runs or has ended."""

from __future__ import annotations

import math

_NO_WORDS = frozenset({"", "0", "idle", "no", "off", "false", "inactive"})
_DONE_WORDS = frozenset({"done", "complete", "finished"})


def is_idle(value: object) -> bool:
    """Whether the value of an activity PV says that no scan runs.

    Parameters
    ----------
    value
        A number, a flag or a text. None, 0, NaN and texts such as "Idle", "no" or "Done" mean that no scan runs.
    """
    return _means_no(value) or _word(value) in _DONE_WORDS


def ends_scan(value: object) -> bool:
    """Whether the value of an end attribute says that its frame is the last one of the scan.

    Parameters
    ----------
    value
        As for `is_idle`, except that "done", "complete" and "finished" mean that the scan is over.
    """
    return not _means_no(value)


def _means_no(value: object) -> bool:
    if isinstance(value, str):
        return _word(value) in _NO_WORDS
    return not value or (isinstance(value, float) and math.isnan(value))


def _word(value: object) -> str:
    return value.strip().lower() if isinstance(value, str) else ""
