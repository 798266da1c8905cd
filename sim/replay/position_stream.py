"""A simulated position source: it sends samples of the stage by time in blocks over PV Access.

The stage moves in a straight line from exposure to exposure, and is at each frame's position at the frame's time. The
positions that frames are given can therefore be compared with the true ones.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from typing import Literal

import numpy as np
import pvaccess as pva
from numpy.typing import ArrayLike, NDArray
from pydantic import Field

from ptychostream.config import Settings
from ptychostream.positions.positions import UNIT_M
from ptychostream.sim.replay.detector import Detector
from ptychostream.sim.replay.index_stream import IndexStream, PandaStream, PositionSender, index_update
from ptychostream.sim.replay.ntndarray import build

_REST_S = 0.1
"""The stage is also sampled at rest for this time before the first frame and after the last one, seconds."""

COLUMNS = ("time", "x", "y")

Samples = NDArray[np.float64]


class PositionStreamSettings(Settings):
    """Settings of the position stream.

    Attributes
    ----------
    channel
        PVA channel. Empty: `<prefix>Pva1:Positions`.
    layout
        "table" (NTTable), "structure" (three arrays) or "array" (NTNDArray of [n, 3] float64).
    sample_hz
        Samples per second.
    bulk
        Smallest number of samples in a block.
    clock_offset_s
        The source's clock - the detector's clock.
    delay_s, jitter_s
        Delay of a block, and largest additional random delay. Blocks stay in order.
    dropout
        Fraction of the blocks that is never sent, 0 to 1.
    twice
        Fraction of the blocks that is sent twice, 0 to 1.
    panda_ports
        Control port and data port of a simulated PandABox.
    seed
        Seed of the jitter, and of the lost and repeated blocks.
    """

    channel: str = ""
    layout: Literal["table", "structure", "array"] = "table"
    sample_hz: float = Field(1000.0, gt=0)
    bulk: int = Field(20, ge=1)
    clock_offset_s: float = 0.0
    delay_s: float = Field(0.0, ge=0)
    jitter_s: float = Field(0.0, ge=0)
    dropout: float = Field(0.0, ge=0, le=1)
    twice: float = Field(0.0, ge=0, le=1)
    panda_ports: tuple[int, int] = (8888, 8889)
    seed: int = 1


class StageSampler:
    """Samples the stage while frames are taken. Pure: times are arguments.

    Parameters
    ----------
    positions_m
        [N, 2] positions of the frames.
    sample_hz
        Samples per second. Their times do not depend on those of the frames.
    """

    def __init__(self, positions_m: NDArray[np.float64], sample_hz: float) -> None:
        self._positions_m = positions_m
        self._period_s = 1 / sample_hz
        self._tick = 0  # number of the next sample
        self._last: tuple[float, int] | None = None  # time and number of the last frame

    def until(self, frame: int, time_s: float) -> Samples:
        """[3, n] time, x and y from the previous frame up to this one, which is taken at `time_s`."""
        if self._last is None:
            self._tick = int(np.ceil((time_s - _REST_S) / self._period_s))
            self._last = time_s - _REST_S, frame
        before_s, before = self._last
        self._last = time_s, frame
        return self._sample(before_s, time_s, before, frame)

    def rest(self) -> Samples:
        """The samples at rest after the last frame."""
        if self._last is None:
            return np.empty((3, 0))
        time_s, frame = self._last
        return self._sample(time_s, time_s + _REST_S, frame, frame)

    def _sample(self, begin_s: float, end_s: float, first: int, last: int) -> Samples:
        stop = int(np.floor(end_s / self._period_s)) + 1
        times = np.arange(self._tick, max(stop, self._tick)) * self._period_s
        self._tick = max(stop, self._tick)
        part = (times - begin_s) / (end_s - begin_s)
        places = self._positions_m[first] + part[:, np.newaxis] * (self._positions_m[last] - self._positions_m[first])
        return np.stack([times, places[:, 0], places[:, 1]])


class PositionStream:
    """Sends the samples of scans in a separate thread.

    Parameters
    ----------
    settings
        See `PositionStreamSettings`.
    unit_m
        Unit of the sent positions, metres.
    send
        Sends an update on the channel. It is called in that thread.
    """

    def __init__(self, settings: PositionStreamSettings, unit_m: float, send: Callable[[pva.PvObject], None]) -> None:
        self._settings = settings
        self._unit_m = unit_m
        self._send = send
        self._random = np.random.default_rng(settings.seed)
        self._blocks: queue.Queue[tuple[float, Samples] | None] = queue.Queue()
        self._due = 0.0
        self._clock_s = 0.0  # the detector's clock - the monotonic one
        self._held: list[Samples] = []
        self._sampler = StageSampler(np.empty((0, 2)), settings.sample_hz)
        self._thread = threading.Thread(target=self._run, name="positions", daemon=True)
        self._thread.start()

    def begin(self, positions_m: NDArray[np.float64]) -> None:
        """Begin a scan with the frames' positions [N, 2]."""
        self._sampler = StageSampler(positions_m, self._settings.sample_hz)

    def frame(self, number: int, time_s: float) -> None:
        """Note that a frame was taken now."""
        self._clock_s = time_s - time.monotonic()
        self._gather(self._sampler.until(number, time_s))

    def end(self) -> None:
        """End the scan. Returns when all its samples are sent."""
        self._gather(self._sampler.rest(), last=True)
        self._blocks.join()

    def stop(self) -> None:
        self._blocks.put(None)
        self._thread.join()

    def _gather(self, samples: Samples, last: bool = False) -> None:
        self._held.append(samples)
        held = sum(block.shape[1] for block in self._held)
        if held and (last or held >= self._settings.bulk):
            block, self._held = np.concatenate(self._held, axis=1), []
            self._emit(block)

    def _emit(self, block: Samples) -> None:
        settings, random = self._settings, self._random.random(3)
        if random[0] < settings.dropout:
            return
        measured = float(block[0, -1]) - self._clock_s  # no sample is sent before it is measured
        late_s = settings.delay_s + random[1] * settings.jitter_s
        self._due = max(self._due, measured + late_s, time.monotonic() + late_s)
        for _ in range(2 if random[2] < settings.twice else 1):
            self._blocks.put((self._due, block))

    def _run(self) -> None:
        while (item := self._blocks.get()) is not None:
            due, block = item
            time.sleep(max(0.0, due - time.monotonic()))
            times, x, y = block
            offset_s = self._settings.clock_offset_s
            self._send(position_update(self._settings.layout, times + offset_s, x / self._unit_m, y / self._unit_m))
            self._blocks.task_done()


def serve_positions(
    detector: Detector, kind: str, channel: str, settings: PositionStreamSettings, unit: str
) -> PositionSender | None:
    """Serve positions beside the frames: on a channel of the detector's server, or as a PandABox.

    Parameters
    ----------
    kind
        "stream" or "both": by time; "index": by index; "panda": a PandABox; "attributes": not at all.
    """
    if kind == "attributes":
        return None
    if kind == "panda":
        return PandaStream(*settings.panda_ports)
    if kind == "index":
        detector.serve(channel, index_update(0, (), ()))
        return IndexStream(settings.bulk, UNIT_M[unit], lambda update: detector.serve(channel, update))
    detector.serve(channel, position_update(settings.layout, (), (), ()))
    return PositionStream(settings, UNIT_M[unit], lambda update: detector.serve(channel, update))


def position_update(layout: str, times: ArrayLike, x: ArrayLike, y: ArrayLike) -> pva.PvObject:
    """One update of a position channel (see `PositionStreamSettings.layout`). The first one has empty columns."""
    columns = [np.ascontiguousarray(column, np.float64) for column in (times, x, y)]
    if layout == "array":
        return build(np.ascontiguousarray(np.transpose(columns)), 0, 0.0) if columns[0].size else pva.NtNdArray()
    kinds = {name: [pva.DOUBLE] for name in COLUMNS}
    if layout == "table":
        update = pva.PvObject({"labels": [pva.STRING], "value": kinds}, "epics:nt/NTTable:1.0")
        update["labels"] = list(COLUMNS)
        inside = "value."
    else:
        update, inside = pva.PvObject(kinds), ""
    for name, column in zip(COLUMNS, columns, strict=True):
        update[inside + name] = column
    return update
