"""A detector's PVA plugin: a channel of NTNDArrays at a set rate."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from types import TracebackType
from typing import Any

import numpy as np
import pvaccess as pva
from numpy.typing import DTypeLike, NDArray

from ptychostream.errors import StreamError
from ptychostream.pva.ntndarray import to_int32
from ptychostream.scans.scan import Scan
from ptychostream.sim.replay.ntndarray import build

POSITION_UNITS_M = {"m": 1.0, "mm": 1e-3, "um": 1e-6, "nm": 1e-9}

MAX_BURST_S = 0.2
"""A detector that is late catches up by sending at once what was due within this time; the rest moves later."""

_SHORT_SLEEP_S = 0.05
_BLOCK_BYTES = 2 << 20


@dataclass(frozen=True)
class Streamed:
    """What was sent.

    Attributes
    ----------
    frames
        How many.
    seconds
        From the first frame to the last.
    rate_hz
        Reached, 0 for fewer than two frames.
    slipped_s
        How far the schedule had to move because this process came late.
    """

    frames: int
    seconds: float
    slipped_s: float

    @property
    def rate_hz(self) -> float:
        return (self.frames - 1) / self.seconds if self.seconds > 0 else 0.0


class Detector:
    """Serves one channel; empty until the first frame, as a detector's is.

    Parameters
    ----------
    channel
        Its name.
    clock
        The clock that stamps the frames, nanoseconds since the POSIX epoch.

    Raises
    ------
    StreamError
        When the server cannot start.
    """

    def __init__(self, channel: str, clock: Callable[[], int] = time.time_ns) -> None:
        self.channel = channel
        self._clock = clock
        try:
            self._server = pva.PvaServer()
            self._server.addRecord(channel, pva.NtNdArray(), None)
        except pva.PvaException as error:
            raise StreamError(
                f"cannot be served: {error}", where=channel, remedy="check the EPICS_PVAS_* variables and the port"
            ) from error

    def stream(
        self,
        arrays: Iterable[pva.PvObject],
        rate_hz: float,
        stop: threading.Event,
        on_sent: Callable[[int, float], None] | None = None,
    ) -> Streamed:
        """Send `arrays` with ids from 0, stamped as they leave.

        The schedule is absolute: what one frame is late, the next is not. `arrays` may be endless and may yield the
        same objects again.

        Parameters
        ----------
        arrays
            NTNDArrays; id and time stamps are written here.
        rate_hz
            Frames per second.
        stop
            Ends the stream early.
        on_sent
            Called with (frame id, POSIX time) of each frame.
        """
        period, sent, slipped = 1 / rate_hz, 0, 0.0
        first = last = start = 0.0
        for nt in arrays:
            if sent == 0:
                start = time.monotonic()
            early = start + sent * period - time.monotonic()
            if early > 0:
                # an event's wait costs more than a sleep; a short one need not be interrupted
                stop.wait(early) if early > _SHORT_SLEEP_S else time.sleep(early)
            elif early < -MAX_BURST_S:
                slipped -= early + MAX_BURST_S
                start -= early + MAX_BURST_S
            if stop.is_set():
                break
            now_ns = self._clock()
            _stamp(nt, sent, now_ns)
            self._server.update(self.channel, nt)
            last = time.monotonic()
            if sent == 0:
                first = last
            if on_sent is not None:
                on_sent(sent, now_ns * 1e-9)
            sent += 1
        return Streamed(sent, last - first, slipped)

    def serve(self, channel: str, update: pva.PvObject) -> None:
        """Serve another channel beside the frames', or put an update on it."""
        if self._server.hasRecord(channel):
            self._server.update(channel, update)
        else:
            self._server.addRecord(channel, update, None)

    def close(self) -> None:
        self._server.stop()

    def __enter__(self) -> Detector:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def _stamp(nt: pva.PvObject, frame: int, now_ns: int) -> None:
    seconds, nanoseconds = divmod(now_ns, 1_000_000_000)
    nt["uniqueId"] = to_int32(frame)
    for field in ("timeStamp", "dataTimeStamp"):
        nt[f"{field}.secondsPastEpoch"] = seconds
        nt[f"{field}.nanoseconds"] = nanoseconds


def scan_arrays(
    scan: Scan,
    *,
    scan_id: str,
    codec: str = "",
    unit_m: float = 1.0,
    dtype: DTypeLike | None = None,
    with_positions: bool = True,
) -> Iterator[pva.PvObject]:
    """The scan's frames as NTNDArrays, read from the file in blocks as they are asked for.

    Their attributes are `PositionX` and `PositionY` in `unit_m`, `ScanID`, and `ScanComplete`, 1 on the last frame.

    Parameters
    ----------
    scan
        Counts in memory or on disk.
    scan_id
        The attribute's value.
    codec
        As in `ptychostream.frames.codecs`; "" sends the counts as they are.
    unit_m
        Unit of the positions sent, metres.
    dtype
        Integer type to send; None keeps the scan's.
    with_positions
        Whether frames say where they were taken.

    Raises
    ------
    StreamError
        When counts do not fit into `dtype`.
    ScanFileError
        When the file cannot be read.
    """
    height, width = scan.counts.shape[1:]
    block = max(1, _BLOCK_BYTES // (height * width * scan.counts.dtype.itemsize))
    edges = [*range(0, len(scan), block), len(scan)]
    for first, last in pairwise(edges):
        counts = scan.counts[first:last]
        for index in range(first, last):
            x, y = scan.positions_m[index] / unit_m
            attributes: dict[str, Any] = {"ScanID": scan_id, "ScanComplete": int(index == len(scan) - 1)}
            if with_positions:
                attributes |= {"PositionX": float(x), "PositionY": float(y)}
            frame = convert(counts[index - first], np.dtype(dtype)) if dtype is not None else counts[index - first]
            yield build(frame, index, 0.0, attributes, codec)


def convert(counts: NDArray[np.integer], dtype: np.dtype[Any]) -> NDArray[np.integer]:
    """Counts in another integer type; dead pixels keep their mark, the type's maximum.

    Raises
    ------
    StreamError
        When a good pixel does not fit.
    """
    if counts.dtype == dtype:
        return counts
    dead = counts == np.iinfo(counts.dtype).max
    limit = np.iinfo(dtype).max
    if counts[~dead].max(initial=0) >= limit:
        raise StreamError(
            f"{counts[~dead].max()} counts do not fit into {dtype}", where="frame", remedy="choose a wider --dtype"
        )
    converted = counts.astype(dtype)
    converted[dead] = limit
    return converted
