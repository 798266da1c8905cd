"""The objects that travel through the edge.

Pixels, frame id, time and scan id stay in one object from the socket to the
canvas: splitting them over two queues is how other systems shear their mosaics.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray


@dataclass(slots=True)
class Frame:
    """One diffraction pattern as it came off the stream.

    Attributes
    ----------
    scan
        Scan id; the empty string where the stream names none.
    id
        Frame number, unwrapped to a number that does not repeat within a scan.
    time
        Acquisition time, seconds since the POSIX epoch.
    counts
        [H, W] detected counts, any integer type.
    attributes
        NTNDArray attributes by name, scalars and strings.
    received
        When the frame reached this process, seconds since the POSIX epoch.
    run
        Which run of the scan it belongs to, given by the pipeline: a scan may come twice under one id.
    entered
        When the pipeline took it, by the monotonic clock, seconds; set there.
    """

    scan: str
    id: int
    time: float
    counts: NDArray[np.integer]
    attributes: Mapping[str, float | int | str] = field(default_factory=dict)
    received: float = 0.0
    run: int = 0
    entered: float = 0.0


@dataclass(slots=True)
class PlacedFrame:
    """A frame whose position is known: `x_m`, `y_m` of the probe's centre, metres, in canvas axes.

    `queued` is when it came to wait for its batch, by the monotonic clock, seconds; set there.
    """

    frame: Frame
    x_m: float
    y_m: float
    queued: float = 0.0
