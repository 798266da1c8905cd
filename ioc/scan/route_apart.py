"""Reads a route file in a child process with limits of memory and time: records may name any file of their folders.

`python -m ptychostream.ioc.scan.route_apart FILE` is that child. It writes the columns, or the error as JSON.
"""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from ptychostream.errors import ScanFileError
from ptychostream.positions.route_file import Route, read_route
from ptychostream.processes.bounded import Bounds, share_of_memory
from ptychostream.scans.read_apart import read_apart

_MODULE = "ptychostream.ioc.scan.route_apart"
_SHARE = 0.25
_TIME_S = 60.0


def read_route_apart(path: Path, bounds: Bounds | None = None) -> Route:
    """Read a route file as `read_route` does.

    Raises
    ------
    ScanFileError
        As `read_route`; or the child crashed, needed more memory or time than it may, or could not start.
    """
    bounds = bounds or Bounds(share_of_memory(_SHARE), _TIME_S)
    remedy = "give a file with the positions of one scan; copy it again if it is damaged"
    output = read_apart(_MODULE, str(path), (), bounds, remedy)
    if output.startswith(b"{"):
        told = json.loads(output)
        raise ScanFileError(told["what"], where=told["where"], remedy=told["remedy"])
    with np.load(io.BytesIO(output), allow_pickle=False) as columns:
        x_unit, y_unit = columns["units"].tolist()
        return Route(columns.get("ids"), columns["x"], columns["y"], (x_unit, y_unit))


def main(path: str) -> None:
    """Write the columns of the file to the standard output."""
    results = sys.stdout.buffer
    try:
        route = read_route(Path(path))
    except ScanFileError as error:
        results.write(json.dumps({"what": error.what, "where": error.where, "remedy": error.remedy}).encode())
        return
    packed = io.BytesIO()
    columns: dict[str, Any] = {"x": route.x, "y": route.y, "units": np.array(route.units)}
    if route.ids is not None:
        columns["ids"] = route.ids
    np.savez(packed, **columns)
    results.write(packed.getbuffer())


if __name__ == "__main__":
    main(sys.argv[1])
