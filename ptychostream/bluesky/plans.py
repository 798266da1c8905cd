"""Plans of bluesky that look at the picture: a scan that is repeated until it is good, and an adaptive scan."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any, Protocol, TypeVar

import numpy as np
from bluesky import plan_stubs as bps
from bluesky import preprocessors as bpp
from bluesky.utils import MsgGenerator, plan
from numpy.typing import NDArray

from ptychostream.adaptive.scan import AdaptiveScan
from ptychostream.bluesky.beamline import SimulatedBeamline
from ptychostream.bluesky.edge import PtychoEdge
from ptychostream.errors import ConfigError

T = TypeVar("T")


class Beamline(Protocol):
    """What the plans need of a beamline: a readable device that takes a scan when it is triggered, and names it."""

    scan_id: Any
    """A signal: the scan's id, as its frames carry it."""


Measure = Callable[[NDArray[np.float64], bool], MsgGenerator[str]]
"""A plan stub that takes frames at points [N, 2] (x, y), metres, into the open scan. Its second argument says whether
more points follow. It returns the scan's id."""


def awaited(make: Callable[[], Awaitable[T]]) -> MsgGenerator[T]:
    """A plan stub that runs a coroutine in the RunEngine's loop and returns its result."""
    found: list[T] = []

    async def run() -> None:
        found.append(await make())

    yield from bps.wait_for([run])
    return found[0]


def stitched(edge: PtychoEdge, scan: str) -> MsgGenerator[None]:
    """A plan stub: wait until a scan is over, stitched and compared."""
    yield from bps.abs_set(edge.expected, scan, wait=True)
    yield from bps.trigger(edge, wait=True)


@plan
def repeat_until_good(
    edge: PtychoEdge,
    beamline: Beamline,
    ssim: float,
    tries: int = 3,
    improve: Callable[[int, float], MsgGenerator[None]] | None = None,
    md: Mapping[str, Any] | None = None,
) -> MsgGenerator[float]:
    """Take a scan, wait for its stitched phase, and repeat it until SSIM passes: one run, one event for each scan.

    Parameters
    ----------
    edge
        The IOC. Its SSIMReference must name a reconstruction.
    beamline
        Takes the scans.
    ssim
        SSIM_RBV that is good enough.
    tries
        The largest number of scans.
    improve
        A plan stub that runs before a scan is repeated, with the number of scans so far and the last SSIM: a larger
        dose, another focus.
    md
        Metadata of the run.

    Returns
    -------
    The SSIM of the last scan. It is below `ssim` where no scan was good enough.

    Raises
    ------
    ConfigError
        `tries` is not positive, or a scan was not compared.
    """
    if tries < 1:
        raise ConfigError(f"{tries} tries", where="repeat_until_good", remedy="give at least one")
    reached = 0.0
    about = {"plan_name": "repeat_until_good", "ssim_wanted": ssim, "tries": tries, **(md or {})}

    @bpp.run_decorator(md=about)
    def inner() -> MsgGenerator[None]:
        nonlocal reached
        for taken in range(1, tries + 1):
            yield from bps.trigger(beamline, wait=True)
            scan = yield from bps.rd(beamline.scan_id)
            yield from stitched(edge, scan)
            reading = yield from read_event([beamline, edge])
            reached = judged(edge, scan, reading)
            if reached >= ssim or taken == tries:
                break
            if improve is not None:
                yield from improve(taken, reached)

    yield from inner()
    return reached


def read_event(devices: list[Any], stream: str = "primary") -> MsgGenerator[dict[str, Any]]:
    """A plan stub: read devices that have been triggered into one event; returns the reading."""
    yield from bps.create(stream)
    reading: dict[str, Any] = {}
    for device in devices:
        reading |= (yield from bps.read(device)) or {}
    yield from bps.save()
    return reading


def judged(edge: PtychoEdge, scan: str, reading: Mapping[str, Any]) -> float:
    """The SSIM in a reading, which must be about `scan`. Raises ConfigError."""
    about = reading[edge.quality.ssim_scan.name]["value"]
    value = float(reading[edge.quality.ssim.name]["value"])
    if about != scan or not np.isfinite(value):
        remedy = "set SSIMReference to a reconstruction of the same place, and see StatusMessage_RBV"
        what = f"scan {scan} was not compared; SSIM_RBV is about {about or 'none'}"
        raise ConfigError(what, where=edge.prefix, remedy=remedy)
    return value


@plan
def adaptive_scan(
    edge: PtychoEdge,
    measure: Measure,
    points_m: NDArray[np.float64],
    beam_m: float,
    budget: int,
    *,
    sparse: int | None = None,
    part: int | None = None,
    devices: tuple[Any, ...] = (),
    md: Mapping[str, Any] | None = None,
) -> MsgGenerator[AdaptiveScan]:
    """Measure sparsely, then where the picture is uncertain, until the budget is used up: one run.

    After each part the weights of the picture and the consistency of its parts decide which points come next (see
    `ptychostream.adaptive`). The stream "parts" has an event for each part, "primary" has one of the complete scan.

    Parameters
    ----------
    edge
        The IOC.
    measure
        Takes the frames of a part.
    points_m, beam_m, budget, sparse, part
        See `ptychostream.adaptive.scan.AdaptiveScan`.
    devices
        Devices that are read into each event, besides the IOC.
    md
        Metadata of the run.

    Returns
    -------
    The scan, with the points that were measured.
    """
    scan = AdaptiveScan(points_m, beam_m, budget, sparse, part)
    about = {"plan_name": "adaptive_scan", "points": len(scan.points_m), "budget": budget, "beam_m": beam_m}

    @bpp.run_decorator(md={**about, **(md or {})})
    def inner() -> MsgGenerator[None]:
        came = yield from awaited(edge.came)
        before = yield from bps.rd(edge.accounting.frames_stitched)
        while len(points := scan.next()):
            last = int(scan.measured.sum()) + len(points) >= budget
            name = yield from measure(scan.points_m[points], not last)
            came += len(points)
            total = yield from awaited(partial(edge.settle, came))
            picture = yield from awaited(partial(edge.picture, name, total - before))
            scan.took(points, picture.image, picture.frames)
            yield from read_event([*devices, edge], "parts")
        yield from stitched(edge, name)
        yield from read_event([*devices, edge])

    yield from inner()
    return scan


def simulated_points(beamline: SimulatedBeamline) -> Measure:
    """The `Measure` of the simulated beamline."""

    def measure(points_m: NDArray[np.float64], more: bool) -> MsgGenerator[str]:
        yield from awaited(lambda: beamline.prepare_points(points_m, more))
        yield from bps.trigger(beamline, wait=True)
        return (yield from bps.rd(beamline.scan_id))

    return measure
