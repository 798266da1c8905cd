"""A step's error as JSON, so that the agent can raise what the step raised in its own process."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ptychostream import errors
from ptychostream.errors import FrameError, PtychostreamError


def pack_error(error: PtychostreamError) -> dict[str, str]:
    """`error` (the name of its class), `what`, `where` and `remedy`.

    An error whose class is not of `ptychostream.errors`, or needs more than these, goes by its nearest base there.
    """
    kind = next(kind for kind in type(error).__mro__ if kind is _kinds().get(kind.__name__))
    return {"error": kind.__name__, "what": error.what, "where": error.where, "remedy": error.remedy}


def unpack_error(packed: Mapping[str, Any]) -> PtychostreamError | None:
    """The error that `pack_error` packed; None where `packed` is a result."""
    if "error" not in packed:
        return None
    kind = _kinds().get(str(packed["error"]), PtychostreamError)
    what, where, remedy = (str(packed.get(name, "")) for name in ("what", "where", "remedy"))
    return kind(what, where=where, remedy=remedy)


def _kinds() -> dict[str, type[PtychostreamError]]:
    found = {name: kind for name, kind in vars(errors).items() if isinstance(kind, type)}
    return {
        name: kind
        for name, kind in found.items()
        if issubclass(kind, PtychostreamError) and not issubclass(kind, FrameError)
    }
