"""The positions: do they come, are they numbers, and do they cover the frames?"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from threading import Event
from typing import Any

import numpy as np

from ptychostream.doctor.finding import Finding, fail, ok, warn
from ptychostream.doctor.stream import SeenFrame, SeenStream
from ptychostream.errors import PtychostreamError, StreamError
from ptychostream.ioc.config.settings import PositionSettings
from ptychostream.positions.route_file import read_route
from ptychostream.pva.channel_reader import ChannelReader, each
from ptychostream.pva.position_update import decode_positions

_CHECK = "positions"


@dataclass
class SeenPositions:
    """What a stream of positions sent: updates with samples, samples, those not finite, why other updates failed."""

    connected: bool = False
    updates: int = 0
    samples: int = 0
    bad: int = 0
    refused: list[str] = field(default_factory=list)


def check_positions(settings: PositionSettings, seen: SeenStream, samples: SeenPositions | None) -> Iterator[Finding]:
    """The findings for the source that is configured."""
    if settings.source == "attributes" and not settings.own:
        if seen.frames:
            yield _attributes(seen.live or seen.frames, settings)
    elif settings.source == "route":
        yield from _route(settings, seen)
    elif settings.source == "stream":
        yield _stream(settings, samples)
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
    except PtychostreamError as error:
        yield fail(_CHECK, str(error.what), error.remedy or "write the route anew")
        return
    lowest = min((frame.raw_id for frame in seen.live), default=0)
    first = lowest if settings.first_id is None else settings.first_id
    ids = np.arange(first, first + len(route.x)) if route.ids is None else route.ids
    known = set(ids.tolist())
    outside = [frame.raw_id for frame in seen.live if frame.raw_id not in known]
    if outside:
        what = f"frame {outside[0]} is not in {settings.route_file}, which covers ids {ids.min()} to {ids.max()}"
        remedy = "set positions.first_id to the id of the scan's first frame, or give the route ids"
        yield fail(_CHECK, f"{what} ({len(outside)} of {len(seen.live)} frames)", remedy)
        return
    yield ok(_CHECK, f"{settings.route_file}: {len(route.x)} positions, ids {ids.min()} to {ids.max()}")


def _stream(settings: PositionSettings, samples: SeenPositions | None) -> Finding:
    channel = settings.stream.pv
    if not channel or samples is None:
        return fail(
            _CHECK, "positions.stream.pv is empty", "name the channel of the positions, or choose another source"
        )
    if not samples.connected:
        return fail(_CHECK, f"{channel} does not answer", "start its server, and put its host into EPICS_PVA_ADDR_LIST")
    if samples.refused:
        what = f"{len(samples.refused)} updates of {channel} give no positions: {samples.refused[0]}"
        return fail(_CHECK, what, "correct positions.stream.columns, or what is sent")
    if samples.bad:
        what = f"{samples.bad} of {samples.samples} samples of {channel} are not finite"
        return fail(_CHECK, what, "look at the encoder or the PV that gives them")
    if not samples.samples:
        return warn(_CHECK, f"no sample of {channel} came", "start the scan, and call doctor again")
    return ok(_CHECK, f"{samples.samples} samples in {samples.updates} updates of {channel}")


def watch_positions(settings: PositionSettings, seconds: float) -> SeenPositions:
    """Subscribe to the stream of positions for `seconds`."""
    seen, connected = SeenPositions(), Event()

    def take(value: Any) -> None:
        try:
            samples = decode_positions(value, settings.stream.columns)
        except StreamError as error:
            seen.refused.append(error.what)
            return
        if samples is not None:
            seen.updates += 1
            seen.samples += samples.shape[1]
            seen.bad += int(np.count_nonzero(~np.isfinite(samples).all(axis=0)))

    def note(here: bool) -> None:
        if here:
            connected.set()

    queue = settings.stream.queue_size
    reader = ChannelReader(settings.stream.pv, "field()", queue, each(take), note, name="doctor's positions")
    reader.start()
    Event().wait(seconds)
    reader.stop()
    seen.connected = connected.is_set()
    return seen
