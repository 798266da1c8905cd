"""Whether a model file is the one that is meant."""

from __future__ import annotations

import hashlib

from ptychostream.errors import ModelError


def check_sha256(
    data: bytes, expected: str, where: str, what: str = "the file was changed", remedy: str = "load or push it again"
) -> None:
    """Raise ModelError where the file's bytes are others than expected; "": any are."""
    if expected and hashlib.sha256(data).hexdigest() != expected:
        raise ModelError(what, where=where, remedy=remedy)
