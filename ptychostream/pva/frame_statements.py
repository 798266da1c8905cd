"""What an NTNDArray says of the region of the sensor that it shows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from p4p import Value

from ptychostream.statements.description import Description


def region_said(value: Value | Mapping[str, Any], source: str) -> Description:
    """Offset, binning and reverse of the two dimensions, x first. A binning of 0 was never set and says nothing.

    Parameters
    ----------
    value
        An update with the field `dimension`. One without it, or with other fields in it, says nothing.
    source
        The PV.
    """
    said = Description(source)
    try:
        dimensions = list(value["dimension"])[:2]
        for axis, dimension in zip("xy", dimensions, strict=False):
            place = f"dimension[{'xy'.index(axis)}]"
            said.state(f"offset_{axis}", int(dimension["offset"]), f"{place}.offset")
            if int(dimension["binning"]):
                said.state(f"binning_{axis}", int(dimension["binning"]), f"{place}.binning")
            said.state(f"reverse_{axis}", bool(dimension["reverse"]), f"{place}.reverse")
    except (LookupError, TypeError, ValueError, AttributeError):
        return Description(source)
    return said
