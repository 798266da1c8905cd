"""Measure the join alone: `python -m ptychostream.benchmarks.positions_join SAMPLES FRAMES` prints a line of JSON."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable

import numpy as np

from ptychostream.frames.frames import Frame
from ptychostream.positions.indexed_positions import IndexedPositions, IndexPositionSettings
from ptychostream.positions.join import Join
from ptychostream.positions.position_stream import StreamPositions, StreamPositionSettings
from ptychostream.positions.positions import AttributePositions, PositionSource
from ptychostream.processes.bounded import status_bytes

BEGIN = 1.7e9
PERIOD_S = 1e-5
BLOCK = 1000
NO_COUNTS = np.zeros((1, 1), np.uint16)


def main(samples: int, frames: int) -> None:
    """Measure each source."""
    every = max(samples // (frames + 1), 1)

    def made(number: int) -> Frame:
        time_s = BEGIN + (number + 0.5) * every * PERIOD_S
        return Frame("scan", number, time_s, NO_COUNTS, {"X": 1.0, "Y": 2.0}, time_s, 1)

    def by_time() -> tuple[PositionSource, Callable[[int, int], None]]:
        source = StreamPositions(StreamPositionSettings(capacity=max(samples, 2), tolerance_s=1.0))

        def send(first: int, last: int) -> None:
            at = np.arange(first, last)
            times = BEGIN + at * PERIOD_S
            source.update(times, at * 1e-9, at * 1e-9, times[-1])

        return source, send

    def by_index() -> tuple[PositionSource, Callable[[int, int], None]]:
        source = IndexedPositions(
            IndexPositionSettings(capacity=max(2 * samples, 2), samples_per_frame=every, first_frame_id=0)
        )

        def send(first: int, last: int) -> None:
            at = np.arange(first, last)
            source.update(first, at * 1e-9, at * 1e-9, arrival=BEGIN + last * PERIOD_S)

        return source, send

    together = max(BLOCK // every, 1)
    report: dict[str, dict[str, dict[str, float]]] = {"join_us": {}, "one_by_one_us": {}}
    for key, at_once in (("join_us", together), ("one_by_one_us", 1)):
        for name, make in (("stream", by_time), ("index", by_index)):
            report[key][name] = {
                "after": _after(*make(), [made(number) for number in range(frames)], samples, at_once),
                "before": _before(*make(), [made(number) for number in range(frames)], samples, every, at_once),
            }
        given = [made(number) for number in range(frames)]
        join = Join(AttributePositions("X", "Y"), frames)
        report[key]["attributes"] = {"after": _timed(join, given, at_once) / frames * 1e6}
    figures = {"samples": samples, "frames": frames, "together": together, **report}
    print(json.dumps({**figures, "rss_mb": _memory(by_time, samples)}))


def _fill(send: Callable[[int, int], None], first: int, last: int) -> None:
    for begin in range(first, last, BLOCK):
        send(begin, min(begin + BLOCK, last))


def _timed(join: Join, frames: list[Frame], at_once: int) -> float:
    begin = time.process_time()
    placed = sum(_add(join, frames[first : first + at_once]) for first in range(0, len(frames), at_once))
    elapsed = time.process_time() - begin
    assert placed == len(frames), f"{placed} of {len(frames)} frames placed"
    return elapsed


def _add(join: Join, frames: list[Frame]) -> int:
    return len((join.add(frames[0]) if len(frames) == 1 else join.add_all(frames)).placed)


def _after(
    source: PositionSource, send: Callable[[int, int], None], frames: list[Frame], samples: int, at_once: int
) -> float:
    _fill(send, 0, samples)
    return _timed(Join(source, len(frames)), frames, at_once) / len(frames) * 1e6


def _before(
    source: PositionSource,
    send: Callable[[int, int], None],
    frames: list[Frame],
    samples: int,
    every: int,
    at_once: int,
) -> float:
    """The time in the join: the time of sending is left out."""
    join, elapsed, placed, sent = Join(source, len(frames)), 0.0, 0, 0
    step = max(BLOCK // every, 1)
    for first in range(0, len(frames), step):
        begin = time.process_time()
        for one in range(first, min(first + step, len(frames)), at_once):
            placed += _add(join, frames[one : one + at_once])
        elapsed += time.process_time() - begin
        last = min((first + step + 1) * every, samples)
        send(sent, last)
        sent = last
        begin = time.process_time()
        placed += len(join.poll().placed)
        elapsed += time.process_time() - begin
    assert placed == len(frames), f"{placed} of {len(frames)} frames placed"
    return elapsed / len(frames) * 1e6


def _memory(make: Callable[[], tuple[PositionSource, Callable[[int, int], None]]], samples: int) -> list[float]:
    before = status_bytes("VmRSS")
    _, send = make()
    _fill(send, 0, samples)
    once = status_bytes("VmRSS")
    _fill(send, samples, 4 * samples)
    return [round(one / 2**20, 1) for one in (before, once, status_bytes("VmRSS"))]


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
