"""Stream a scan file like a detector."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from itertools import count
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import Field

from ptychostream.config import Settings
from ptychostream.errors import ConfigError
from ptychostream.frames.codecs import CODECS
from ptychostream.positions.positions import UNIT_M
from ptychostream.scans.scan_files import ScanOptions
from ptychostream.scans.scan_probe import open_probed
from ptychostream.sim.replay.connections import drain
from ptychostream.sim.replay.detector import Detector, Streamed, scan_arrays
from ptychostream.sim.replay.gate import Gate
from ptychostream.sim.replay.index_stream import PositionSender
from ptychostream.sim.replay.position_stream import PositionStreamSettings, serve_positions


class Replay(Settings):
    """Settings of a replay.

    Attributes
    ----------
    channel
        PVA channel to serve.
    rate_hz
        Frames per second.
    codec
        Codec of the frames (see `ptychostream.frames.codecs`). "" sends uncompressed counts.
    loops
        Passes over the file. 0 repeats until stopped.
    scan_id
        Id of the scan. Empty: the file's. With several passes each is a separate scan: id-1, id-2…
    dtype
        Integer type of the sent counts. Empty: the file's.
    position_unit
        Unit of the attributes PositionX and PositionY.
    positions
        Positions as "attributes" of the frames, as a separate "stream" by time (see `position_stream`), or "both"; by
        "index" on a channel; or from a simulated PandABox ("panda").
    gate
        Conditions for the first frame.
    """

    channel: str = "bl:Pva1:Image"
    rate_hz: float = Field(100.0, gt=0)
    codec: str = ""
    loops: int = Field(1, ge=0)
    scan_id: str = ""
    dtype: Literal["", "uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64"] = ""
    position_unit: Literal["m", "mm", "um", "nm"] = "m"
    positions: Literal["attributes", "stream", "both", "index", "panda"] = "attributes"
    position_stream: PositionStreamSettings = PositionStreamSettings()
    gate: Gate = Gate()

    @property
    def position_channel(self) -> str:
        return self.position_stream.channel or f"{self.channel.rpartition(':')[0]}:Positions".lstrip(":")


def replay(
    path: str | Path,
    settings: Replay,
    stop: threading.Event,
    on_serving: Callable[[str], None] | None = None,
    on_scan: Callable[[str, int], None] | None = None,
    on_sent: Callable[[int, float], None] | None = None,
    *,
    options: ScanOptions | None = None,
) -> list[tuple[str, Streamed]]:
    """Serve the scan file `path` until it is sent or `stop` is set.

    Parameters
    ----------
    on_serving
        Called once with a description of the channel, before the gate.
    on_scan
        Called with (scan id, number of frames) when a pass begins.
    on_sent
        Called with (frame id, POSIX time) for each frame.
    options
        How to read the file. Energy, distance and pixel are not needed.

    Returns
    -------
    (scan id, `Streamed`) of each pass.

    Raises
    ------
    ScanFileError, StreamError, ConfigError
    """
    check_codec(settings.codec)
    passes: list[tuple[str, Streamed]] = []
    with (
        open_probed(path, options, geometry=False) as scan,
        Detector(settings.channel) as detector,
        ExitStack() as ended,
    ):
        height, width = scan.counts.shape[1:]
        dtype = np.dtype(settings.dtype or scan.counts.dtype)
        positions = serve_positions(
            detector, settings.positions, settings.position_channel, settings.position_stream, settings.position_unit
        )
        if positions is not None:
            ended.callback(positions.stop)
        if on_serving is not None:
            on_serving(
                f"{settings.channel}: {len(scan)} frames of {height}×{width} {dtype} {settings.codec or 'raw'}, "
                f"{settings.rate_hz:g} frames/s, positions in {settings.position_unit}"
                + ("" if positions is None else f" on {settings.position_channel}")
            )
        if not settings.gate.wait(stop):
            return passes
        for scan_id in scan_ids(settings.scan_id or scan.scan_id, settings.loops):
            if on_scan is not None:
                on_scan(scan_id, len(scan))
            arrays = scan_arrays(
                scan,
                scan_id=scan_id,
                codec=settings.codec,
                unit_m=UNIT_M[settings.position_unit],
                dtype=dtype,
                with_positions=settings.positions in ("attributes", "both"),
            )
            if positions is not None:
                positions.begin(scan.positions_m)
            streamed = detector.stream(arrays, settings.rate_hz, stop, _tell(positions, on_sent))
            if positions is not None:
                positions.end()
            passes.append((scan_id, streamed))
            if stop.is_set():
                break
        drain(stop)
    return passes


def _tell(
    positions: PositionSender | None, on_sent: Callable[[int, float], None] | None
) -> Callable[[int, float], None] | None:
    """A callback for sent frames that also informs the stream of positions."""
    if positions is None:
        return on_sent

    def sent(frame: int, time_s: float) -> None:
        positions.frame(frame, time_s)
        if on_sent is not None:
            on_sent(frame, time_s)

    return sent


def scan_ids(name: str, loops: int) -> Iterator[str]:
    """The scan ids of the passes: `name` for one pass, name-1, name-2… for several. 0 passes: endless."""
    if loops == 1:
        yield name
        return
    for number in count(1) if loops == 0 else range(1, loops + 1):
        yield f"{name}-{number}"


def check_codec(codec: str) -> None:
    """Raise ConfigError if the codec is unknown."""
    if codec not in CODECS:
        known = ", ".join(name or "none" for name in CODECS)
        raise ConfigError(f"no codec {codec!r}", where="--codec", remedy=f"choose from {known}")
