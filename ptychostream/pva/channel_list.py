"""The PVA channel `Images`: the names of the images that an IOC serves, so that a client finds them without a list."""

from __future__ import annotations

from collections.abc import Iterable

from p4p.nt import NTScalar
from p4p.server.raw import SharedPV

IMAGES = "Images"
"""The channel's name, after the prefix."""


def list_channel(names: Iterable[str]) -> SharedPV:
    """A read-only channel whose value is these names, without the prefix."""
    value = {"value": list(names), "display": {"description": "Names of the images served here"}}
    return SharedPV(initial=NTScalar("as", display=True).wrap(value))
