"""The positions: do they come, are they numbers, and do they cover the frames?"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from threading import Event

import numpy as np
from numpy.typing import NDArray

from ptychostream.doctor.finding import Finding, fail, ok, warn
from ptychostream.doctor.stream import SeenFrame, SeenStream
from ptychostream.errors import PtychostreamError, StreamError
from ptychostream.ioc.config.settings import PositionSettings
from ptychostream.plugins.position_receiver import (
    IndexReceiver,
    PositionReceiver,
)
from ptychostream.positions.positions import RoutePositions
from ptychostream.positions.route_file import read_route

_CHECK = "positions"


@dataclass
class SeenPositions:
    """What a channel of positions sent: updates with samples, samples, those not finite, why other updates failed."""

    connected: bool = False
    updates: int = 0
    samples: int = 0
    bad: int = 0
    refused: list[str] = field(default_factory=list)


def check_positions(settings: PositionSettings, seen: SeenStream, samples: SeenPositions | None) -> Iterator[Finding]:
    """The findings for the source that is configured."""
    if settings.source == "attributes" and not settings.own:
        if seen.wanted:
            yield _attributes(seen.wanted, settings)
    elif settings.source == "route":
        yield from _route(settings, seen)
    elif settings.source in ("stream", "index"):
        yield _stream(settings.source, position_channel(settings), samples)
    elif settings.source != "waveform":  # that one's records are looked at
        what = f"the source {settings.own or settings.source} is not looked at here"
        yield warn(_CHECK, what, "look at PositionMessage_RBV and PositionsCount_RBV of the IOC while a scan runs")


def _attributes(frames: Sequence[SeenFrame], settings: PositionSettings) -> Finding:
    for name in (settings.x_attribute, settings.y_attribute):
        values = [frame.attributes.get(name) for frame in frames]
        missing = sum(value is None for value in values)
        if missing:
            what = f"{missing} of {len(values)} frames have no attribute {name}"
            return fail(_CHECK, what, f"add {name} to the detector's attributes file, or correct positions.*_attribute")
        wrong = [value for value in values if not _is_number(value)]
        if wrong:
            what = f"attribute {name} is {wrong[0]!r} in {len(wrong)} of {len(values)} frames, and no number"
            return fail(_CHECK, what, f"look at the PV that {name} reads, and whether it is connected")
    places = {(frame.attributes[settings.x_attribute], frame.attributes[settings.y_attribute]) for frame in frames}
    if len(places) == 1 and len(frames) > 1:
        what = f"{len(frames)} frames have one position: {', '.join(map(str, next(iter(places))))}"
        return warn(_CHECK, what, "start the scan; if it runs, look whether the attributes follow the stage")
    return ok(_CHECK, f"{len(places)} positions in {len(frames)} frames")


def _is_number(value: object) -> bool:
    try:
        return math.isfinite(float(value))  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return False


def _route(settings: PositionSettings, seen: SeenStream) -> Iterator[Finding]:
    if settings.route_file is None:
        yield fail(_CHECK, "positions.route_file is not set", "name the route's file, or choose another source")
        return
    try:
        route = read_route(settings.route_file)
        RoutePositions(route, settings.axes, settings.first_id)
    except PtychostreamError as error:
        yield fail(_CHECK, str(error.what), error.remedy or "write the route anew")
        return
    lowest = min((frame.raw_id for frame in seen.frames), default=0)
    first = lowest if settings.first_id is None else settings.first_id
    ids = np.arange(first, first + len(route.x)) if route.ids is None else route.ids
    known = set(ids.tolist())
    outside = [frame.raw_id for frame in seen.frames if frame.raw_id not in known]
    if outside:
        what = f"frame {outside[0]} is not in {settings.route_file}, which covers ids {ids.min()} to {ids.max()}"
        remedy = "set positions.first_id to the id of the scan's first frame, or give the route ids"
        yield fail(_CHECK, f"{what} ({len(outside)} of {len(seen.frames)} frames)", remedy)
        return
    yield ok(_CHECK, f"{settings.route_file}: {len(route.x)} positions, ids {ids.min()} to {ids.max()}")


def position_channel(settings: PositionSettings) -> str:
    """The PVA channel that the configured source is read from; empty where it is none, or where none is named."""
    channels = {"stream": settings.stream.pv, "index": settings.index.pv}
    return channels.get(settings.source, "").strip()


def _stream(source: str, channel: str, samples: SeenPositions | None) -> Finding:
    if not channel or samples is None:
        return fail(
            _CHECK, f"positions.{source}.pv is empty", "name the channel of the positions, or choose another source"
        )
    if not samples.connected:
        return fail(_CHECK, f"{channel} does not answer", "start its server, and put its host into EPICS_PVA_ADDR_LIST")
    if samples.refused:
        what = f"{len(samples.refused)} updates of {channel} give no positions: {samples.refused[0]}"
        return fail(_CHECK, what, f"correct positions.{source}.columns, or what is sent")
    if samples.bad:
        what = f"{samples.bad} of {samples.samples} samples of {channel} are not finite"
        return fail(_CHECK, what, "look at the encoder or the PV that gives them")
    if not samples.samples:
        return warn(_CHECK, f"no sample of {channel} came", "start the scan, and call doctor again")
    return ok(_CHECK, f"{samples.samples} samples in {samples.updates} updates of {channel}")


def watch_positions(settings: PositionSettings, seconds: float) -> SeenPositions:
    """Subscribe to the positions for `seconds`, as the IOC does."""
    seen = SeenPositions()

    def count(values: NDArray[np.float64]) -> None:
        seen.updates += 1
        seen.samples += values.shape[1]
        seen.bad += int(np.count_nonzero(~np.isfinite(values).all(axis=0)))

    def count_columns(x: object, y: object) -> None:
        try:
            count(np.atleast_2d(np.array([x, y], np.float64)))
        except (TypeError, ValueError):
            seen.refused.append("x and y are not two columns of numbers of one length")

    def refuse(error: StreamError) -> None:
        seen.refused.append(error.what)

    def note(here: bool) -> None:
        seen.connected = seen.connected or here

    receiver: PositionReceiver | IndexReceiver
    unit = settings.axes.unit
    if settings.source == "stream":
        channel = settings.stream.receiver(unit=unit)
        receiver = PositionReceiver(channel, lambda samples, _: count(samples), refuse, note)
    else:
        by_index = settings.index.receiver(unit=unit)
        receiver = IndexReceiver(by_index, lambda one, _: count_columns(one.x, one.y), refuse, note)
    receiver.start()
    Event().wait(seconds)
    receiver.stop()
    return seen
