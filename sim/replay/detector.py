"""A simulated PVA plugin of a detector: a channel of NTNDArrays at a given rate."""

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

MAX_BURST_S = 0.2
"""A late detector sends the frames that were due within this time at once. The rest of the schedule moves later."""

_SHORT_SLEEP_S = 0.05
_BLOCK_BYTES = 2 << 20


@dataclass(frozen=True)
class Streamed:
    """The figures of a stream.

    Attributes
    ----------
    frames
        Number of sent frames.
    seconds
        Time from the first to the last frame.
    rate_hz
        Mean rate. 0 for fewer than two frames.
    slipped_s
        Total time that the schedule moved because this process was late.
    first_id
        Id of the first frame.
    """

    frames: int
    seconds: float
    slipped_s: float
    first_id: int = 0

    @property
    def rate_hz(self) -> float:
        return (self.frames - 1) / self.seconds if self.seconds > 0 else 0.0


class Detector:
    """Serves one channel. It is empty until the first frame, and then holds its last frame for new subscribers, like
    that of a detector.

    Parameters
    ----------
    channel
        Name of the channel.
    clock
        Clock for the time stamps, nanoseconds since the POSIX epoch.
    adcore
        Number the frames as areaDetector does: from 1, going on from stream to stream. Else each stream begins at 0.

    Raises
    ------
    StreamError
        The server cannot start.
    """

    def __init__(self, channel: str, clock: Callable[[], int] = time.time_ns, *, adcore: bool = False) -> None:
        self.channel = channel
        self._clock = clock
        self._adcore = adcore
        self._next_id = int(adcore)
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
        *,
        goes_on: bool = False,
    ) -> Streamed:
        """Send `arrays` with their ids and the time stamp of the moment of sending.

        The schedule is absolute, so the delay of one frame does not delay the next ones. `arrays` may be endless and
        may yield the same objects again.

        Parameters
        ----------
        arrays
            NTNDArrays. Id and time stamps are written here.
        rate_hz
            Frames per second.
        stop
            Ends the stream early.
        on_sent
            Called with (frame's number in this stream, from 0, POSIX time) for each frame.
        goes_on
            The ids go on from those of the stream before.
        """
        first_id = self._next_id if self._adcore or goes_on else 0
        period, sent, slipped = 1 / rate_hz, 0, 0.0
        first = last = start = 0.0
        for nt in arrays:
            if sent == 0:
                start = time.monotonic()
            early = start + sent * period - time.monotonic()
            if early > 0:
                # waiting for an event costs more than a sleep, and a short sleep need not be interrupted
                stop.wait(early) if early > _SHORT_SLEEP_S else time.sleep(early)
            elif early < -MAX_BURST_S:
                slipped -= early + MAX_BURST_S
                start -= early + MAX_BURST_S
            if stop.is_set():
                break
            now_ns = self._clock()
            _stamp(nt, first_id + sent, now_ns)
            self._server.update(self.channel, nt)
            last = time.monotonic()
            if sent == 0:
                first = last
            if on_sent is not None:
                on_sent(sent, now_ns * 1e-9)
            sent += 1
        self._next_id = first_id + sent
        return Streamed(sent, last - first, slipped, first_id)

    def serve(self, channel: str, update: pva.PvObject) -> None:
        """Serve another channel besides that of the frames, or send an update on it."""
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
    stale: int = 0,
    ends: bool = True,
) -> Iterator[pva.PvObject]:
    """The scan's frames as NTNDArrays. They are read from the file in blocks when they are needed.

    Their attributes are `PositionX` and `PositionY` in `unit_m`, `ScanID`, and `ScanComplete`, 1 on the last frame.

    Parameters
    ----------
    scan
        Counts in memory or on disk.
    scan_id
        Value of the attribute `ScanID`.
    codec
        Codec of the frames (see `ptychostream.frames.codecs`). "" sends uncompressed counts.
    unit_m
        Unit of the sent positions, metres.
    dtype
        Integer type of the sent counts. None: the scan's type.
    with_positions
        Whether frames have the position attributes.
    stale
        Number of first frames that still have the `ScanComplete` of the scan before, 1: areaDetector repeats an
        attribute's last value, and learns of a new one some frames late.
    ends
        Whether the last frame is the scan's last.

    Raises
    ------
    StreamError
        Counts do not fit into `dtype`.
    ScanFileError
        The file cannot be read.
    """
    height, width = scan.counts.shape[1:]
    block = max(1, _BLOCK_BYTES // (height * width * scan.counts.dtype.itemsize))
    edges = [*range(0, len(scan), block), len(scan)]
    for first, last in pairwise(edges):
        counts = scan.counts[first:last]
        for index in range(first, last):
            x, y = scan.positions_m[index] / unit_m
            complete = index < stale or (ends and index == len(scan) - 1)
            attributes: dict[str, Any] = {"ScanID": scan_id, "ScanComplete": int(complete)}
            if with_positions:
                attributes |= {"PositionX": float(x), "PositionY": float(y)}
            frame = convert(counts[index - first], np.dtype(dtype)) if dtype is not None else counts[index - first]
            yield build(frame, index, 0.0, attributes, codec)


def convert(counts: NDArray[np.integer], dtype: np.dtype[Any]) -> NDArray[np.integer]:
    """Convert counts to another integer type. Dead pixels keep their mark, the type's maximum.

    Raises
    ------
    StreamError
        A good pixel does not fit.
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
