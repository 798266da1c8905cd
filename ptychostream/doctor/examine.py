"""Looks at everything that a configuration names, and gives the findings in the order of a frame's way."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

from ptychostream.doctor.clock import check_clock
from ptychostream.doctor.files import check_autosave, check_disk
from ptychostream.doctor.finding import Finding
from ptychostream.doctor.frames import check_frames
from ptychostream.doctor.memory import check_memory
from ptychostream.doctor.model import check_engine, check_model
from ptychostream.doctor.positions import check_positions, position_channel, watch_positions
from ptychostream.doctor.records import check_records, read_records
from ptychostream.doctor.region import check_region
from ptychostream.doctor.scan_marks import check_marks
from ptychostream.doctor.scan_pv import asked, check_scan_pvs
from ptychostream.doctor.servers import check_servers, find_servers, searched
from ptychostream.doctor.stream import SeenStream, watch
from ptychostream.frames.intake import Intake
from ptychostream.ioc.config.settings import IocSettings
from ptychostream.model.contract import ModelContract
from ptychostream.plugins.engines import probe_engines
from ptychostream.recording.record_metadata import read_pvs

_SEARCH_S = 1.0
_ANSWER_S = 2.0


def examine(settings: IocSettings, seconds: float) -> list[Finding]:
    """The findings for an IOC with these settings; its streams are watched for `seconds`."""
    return list(_findings(settings, seconds))


def _findings(settings: IocSettings, seconds: float) -> Iterator[Finding]:
    model, contract = check_model(settings)
    channel, positions = settings.input.pv, settings.positions
    intake = intake_of(settings, contract)
    with ThreadPoolExecutor() as pool:
        servers = pool.submit(find_servers, channel, os.environ, _SEARCH_S) if channel else None
        watched = pool.submit(watch, channel, intake, seconds) if channel else None
        samples = pool.submit(watch_positions, positions, seconds) if position_channel(positions) else None
        pvs = pool.submit(read_pvs, asked(settings.scan), time.monotonic() + _ANSWER_S)
        records = pool.submit(read_records, settings.prefix, _ANSWER_S)
    seen = watched.result() if watched else SeenStream("", time.time(), 0.0)
    found = servers.result() if servers else []
    yield check_servers("input.pv", channel, found, seen.connected, searched(os.environ))
    if seen.connected:
        yield from check_frames(seen, contract)
        yield from check_memory(seen, settings)
        yield from check_region(seen, contract)
        clock = check_clock(seen)
        if clock is not None:
            yield clock
        yield from check_marks(seen, settings)
    yield from check_positions(positions, seen, samples.result() if samples else None)
    yield from check_scan_pvs(settings.scan, pvs.result())
    yield model
    yield check_engine(settings, probe_engines())
    yield from check_records(settings.prefix, records.result(), positions.source)
    yield check_disk(settings)
    yield check_autosave(settings)


def intake_of(settings: IocSettings, contract: ModelContract | None) -> Intake:
    """The reading of the stream that the IOC has with these settings and this model."""
    given, positions = settings.input, settings.positions
    further = (positions.x_attribute, positions.y_attribute)
    expected = contract.said() if contract is not None else None
    return given.intake(given.scan_attribute, given.end_attribute, further, expected)
