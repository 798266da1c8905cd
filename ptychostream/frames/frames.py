"""The frame, and the frame with its position.

Pixels, frame id, time and scan id stay in one object from the socket to the canvas. If they travelled in two queues,
patterns could be stitched at the positions of other frames.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ptychostream.errors import DropCause


@dataclass(slots=True)
class Frame:
    """One diffraction pattern as it was received.

    Attributes
    ----------
    scan
        Scan id. It is the empty string if the stream names no scan.
    id
        Frame number, unwrapped: it does not repeat within a scan.
    time
        Acquisition time, seconds since the POSIX epoch.
    counts
        [H, W] detected counts, any integer type.
    attributes
        NTNDArray attributes by name, scalars and strings.
    received
        Time when the frame reached this process, seconds since the POSIX epoch.
    run
        Number of the scan run, set by the pipeline: the same scan id may come twice.
    raw_id
        Frame number as it was sent.
    entered
        Time when the pipeline took the frame, monotonic clock, seconds. The pipeline sets it.
    flag
        Whether its end attribute is up; None if it has none.
    first
        Id of its run's first frame, unwrapped. The pipeline sets it.
    fault
        Why it must not be stitched, although it could be read; None: nothing is wrong with it.
    """

    scan: str
    id: int
    time: float
    counts: NDArray[np.integer]
    attributes: Mapping[str, float | int | str] = field(default_factory=dict)
    received: float = 0.0
    run: int = 0
    entered: float = 0.0
    raw_id: int = 0
    flag: bool | None = None
    fault: DropCause | None = None
    first: int = 0


@dataclass(slots=True)
class PlacedFrame:
    """A frame with its position: `x_m`, `y_m` of the probe's centre in metres, in canvas axes.

    `queued` is the time when the frame began to wait for its batch, monotonic clock, seconds. The pipeline sets it.
    """

    frame: Frame
    x_m: float
    y_m: float
    queued: float = 0.0
