"""Frames, positions and scan boundaries in any order: no frame is lost or doubled, no id repeats, memory is bounded."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np
from fuzz.reader import Reader

from ptychostream.errors import GeometryError
from ptychostream.frames.frame_ids import WINDOW, FrameIds
from ptychostream.frames.frames import Frame
from ptychostream.plugins.flow.batcher import Batcher
from ptychostream.plugins.flow.frame_flow import FrameFlow
from ptychostream.positions.join import Join, Joined
from ptychostream.positions.positions import AttributePositions, PositionSource, WaveformPositions

SCANS = ("", "a", "b", "c")
CAPACITY = 5
_COUNTS = np.zeros((1, 1), np.uint16)


def seeds() -> Iterable[bytes]:
    """Frames in order, wrapped, reset, doubled; waveforms before and after; scans that end and come again."""
    yield bytes(range(200))
    yield bytes([0] + [v for i in range(40) for v in (0, 1, i % 64, i)])
    yield bytes([1] + [v for i in range(40) for v in (i % 7, 1, i % 64, i, 200, i)])
    yield bytes([2] + [v for i in range(20) for v in (3, 4, i, i, 0, 1, 255, i, 0, 0, 0, 0, 0, 0, 0, 9)])


def check(data: bytes) -> None:
    """Run one story through the ids, the join, and the flow that holds both."""
    reader = Reader(data)
    source: PositionSource = WaveformPositions() if reader.byte() % 2 else AttributePositions("X", "Y")
    join, ids = Join(source, CAPACITY), FrameIds()
    batcher = Batcher(3, 0.1, CAPACITY, drop_oldest=bool(reader.byte() % 2))
    flow = FrameFlow(source, CAPACITY, batcher)
    given: set[int] = set()
    came = left = 0
    now = 0.0
    while reader:
        now += 0.01
        action, scan = reader.byte() % 10, reader.choice(SCANS)
        out = Joined()
        if action < 4:
            frame = _frame(reader, scan)
            flow.submit(_copy(frame), now)
            number = ids.accept(frame.id, frame.time)
            if number is not None:
                assert number not in given
                given.add(number)
                frame.id = number
                came += 1
                out = join.add(frame)
        elif action == 4 and isinstance(source, WaveformPositions):
            _update(source, reader, scan)
            flow.poll(now)
            out = join.poll()
        elif action == 5:
            flow.end_scan(scan, now)
            out = join.end_scan(scan)
        elif action == 6:
            flow.start_scan(scan, now)
            join.start_scan(scan)
        elif action == 7:
            flow.take(now)
            flow.land(len(flow.in_flight), [])
        elif action == 8:
            flow.set_positions(source, now)
        else:
            flow.restart_counters()
        left += len(out.placed) + len(out.dropped)
        assert all(math.isfinite(placed.x_m) and math.isfinite(placed.y_m) for placed in out.placed)
        assert came == left + join.waiting
        assert join.waiting <= CAPACITY
        assert flow.holds
        assert ids.missed >= 0
    assert len(ids._times) <= WINDOW + 1


def _frame(reader: Reader, scan: str) -> Frame:
    raw = (reader.integer() + (1 << 31)) % (1 << 32) - (1 << 31)
    attributes: dict[str, float | int | str] = {}
    for name in ("X", "Y"):
        kind = reader.byte()
        if kind < 240:
            attributes[name] = reader.number() if kind < 200 else reader.integer() if kind < 220 else reader.text()
    return Frame(scan, raw, reader.byte() / 8, _COUNTS, attributes)


def _copy(frame: Frame) -> Frame:
    return Frame(frame.scan, frame.id, frame.time, frame.counts, frame.attributes)


def _update(source: WaveformPositions, reader: Reader, scan: str) -> None:
    x = [reader.number() for _ in range(reader.byte() % 8)]
    y = [reader.number() for _ in range(reader.byte() % 8)]
    try:
        source.update(x, y, complete=reader.byte() > 128, scan=scan or None)
    except GeometryError as error:
        assert error.remedy
