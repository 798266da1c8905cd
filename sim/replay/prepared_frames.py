"""A channel of NTNDArrays that were serialised beforehand: the cheapest source there is, for benchmarks of receivers.

A frame costs its number, its time stamp and the copy to the socket. The bytes are those that a PVA plugin sends.
"""

from __future__ import annotations

import math
import struct
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptychostream.frames.codecs import compress
from ptychostream.pva.reading import SCALAR_TYPES, Scalar
from ptychostream.rawpva.encoding import ANYTHING, array, encode, scalar, structure, structures, union
from ptychostream.rawpva.fields import STRUCTURE, Field, Layout
from ptychostream.rawpva.raw_server import RawServer
from ptychostream.rawpva.raw_values import RawUpdate
from ptychostream.sim.replay.detector import MAX_BURST_S, Streamed

TIME_T = structure("time_t", secondsPastEpoch=scalar("int64"), nanoseconds=scalar("int32"), userTag=scalar("int32"))
CODEC_T = structure("codec_t", name=scalar("str"), parameters=ANYTHING)
DIMENSION_T = structure(
    "dimension_t",
    size=scalar("int32"),
    offset=scalar("int32"),
    fullSize=scalar("int32"),
    binning=scalar("int32"),
    reverse=scalar("bool"),
)
_ATTRIBUTE = structure(
    "epics:nt/NTAttribute:1.0",
    name=scalar("str"),
    value=ANYTHING,
    descriptor=scalar("str"),
    sourceType=scalar("int32"),
    source=scalar("str"),
)
_KINDS = ("byte", "short", "int", "long", "ubyte", "ushort", "uint", "ulong", "float", "double")
_UNION = dict(zip((dtype.name for dtype in SCALAR_TYPES.values()), (f"{kind}Value" for kind in _KINDS), strict=True))
_NTNDARRAY = structure(
    "epics:nt/NTNDArray:1.0",
    value=union(**{field: array(dtype) for dtype, field in _UNION.items()}),
    codec=CODEC_T,
    compressedSize=scalar("int64"),
    uncompressedSize=scalar("int64"),
    dimension=structures(DIMENSION_T),
    uniqueId=scalar("int32"),
    dataTimeStamp=TIME_T,
    attribute=structures(_ATTRIBUTE),
    timeStamp=TIME_T,
)
_LAYOUT = Layout(_NTNDARRAY)
_TICK_S = 0.002
"""Frames that are due within this time are sent together: waking for each costs more than the frame."""


def serialise(frame: NDArray[Any], codec: str) -> list[bytes]:
    """The values of an NTNDArray's fields as they travel; id and time stamps are zero, and there are no attributes.

    Parameters
    ----------
    frame
        [H, W] counts.
    codec
        As in `ptychostream.frames.codecs`; "" sends the counts as they are.
    """
    code = next(code for code, dtype in SCALAR_TYPES.items() if dtype == frame.dtype)
    payload = np.frombuffer(compress(frame, codec), np.uint8) if codec else np.ascontiguousarray(frame).ravel()
    value = {
        "value": (_UNION[payload.dtype.name], payload),
        "codec": {"name": codec, "parameters": (scalar("int32"), code)},
        "compressedSize": payload.nbytes,
        "uncompressedSize": math.prod(frame.shape) * frame.itemsize,
        "dimension": [{"size": size, "fullSize": size, "binning": 1} for size in reversed(frame.shape)],
    }
    return _LAYOUT.split(encode(_NTNDARRAY, value))


def with_attributes(values: list[bytes], attributes: Mapping[str, Scalar]) -> list[bytes]:
    """A frame made by `serialise` with these NTAttributes; the payload is shared."""
    copied = values.copy()
    held = [{"name": name, "value": _any(value)} for name, value in attributes.items()]
    copied[_LEAF["attribute"]] = encode(_LAYOUT.leaves[_LEAF["attribute"]], held)
    return copied


def _any(value: Scalar) -> tuple[Any, Scalar]:
    return scalar("str" if isinstance(value, str) else "int32" if isinstance(value, int) else "float64"), value


class PreparedFrames:
    """Serves one channel; empty until the first frame, as a detector's is.

    Parameters
    ----------
    channel
        Its name.

    Raises
    ------
    StreamError
        When the server cannot start.
    """

    def __init__(self, channel: str) -> None:
        self.channel = channel
        self._server = RawServer([channel])
        self._server.publish(channel, RawUpdate(0, _NTNDARRAY, 0, 0, b"".join(_LAYOUT.defaults)))

    def stream(
        self, ring: Sequence[list[bytes]], frames: int, rate_hz: float, stop: threading.Event
    ) -> tuple[Streamed, float, float]:
        """Send `frames` frames, the ring's over and over, with ids from 0 and stamped as they leave.

        Parameters
        ----------
        ring
            Made by `serialise` and `with_attributes`.
        rate_hz
            Frames per second; what one frame is late, the next is not.
        stop
            Ends the stream early.

        Returns
        -------
        Streamed, first, last
            What was sent, and the POSIX time stamps of the first and the last frame.
        """
        sent, slipped, first, last = 0, 0.0, 0.0, 0.0
        began = start = time.monotonic()
        while sent < frames and not stop.is_set():
            late = time.monotonic() - start - sent / rate_hz
            if late > MAX_BURST_S:
                slipped += late - MAX_BURST_S
                start += late - MAX_BURST_S
            due = min(frames, math.floor((time.monotonic() - start) * rate_hz) + 1)
            together: list[list[bytes]] = []
            for number in range(sent, due):
                now_ns = time.time_ns()
                together.append(_stamped(ring[number % len(ring)], number, now_ns))
                first, last = first or now_ns * 1e-9, now_ns * 1e-9
            if together:
                self._server.publish_split(self.channel, together)
            sent = due
            time.sleep(max(_TICK_S, start + sent / rate_hz - time.monotonic()) if sent < frames else 0.0)
        return Streamed(sent, time.monotonic() - began, slipped), first, last

    def close(self) -> None:
        self._server.close()

    def __enter__(self) -> PreparedFrames:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def _paths(field: Field, before: str = "") -> Iterator[str]:
    """The leaves' names, in order."""
    for name, member in field.members:
        if member.code == STRUCTURE:
            yield from _paths(member, f"{before}{name}.")
        else:
            yield before + name


_LEAF = {path: number for number, path in enumerate(_paths(_NTNDARRAY))}
_ID = _LEAF["uniqueId"]
_SECONDS = [_LEAF[f"{stamp}.secondsPastEpoch"] for stamp in ("timeStamp", "dataTimeStamp")]
_NANOSECONDS = [_LEAF[f"{stamp}.nanoseconds"] for stamp in ("timeStamp", "dataTimeStamp")]
_INT, _LONG = struct.Struct("<i"), struct.Struct("<q")


def _stamped(values: list[bytes], number: int, now_ns: int) -> list[bytes]:
    seconds, nanoseconds = divmod(now_ns, 1_000_000_000)
    stamped = values.copy()
    stamped[_ID] = _INT.pack((number + (1 << 31)) % (1 << 32) - (1 << 31))
    stamped[_SECONDS[0]] = stamped[_SECONDS[1]] = _LONG.pack(seconds)
    stamped[_NANOSECONDS[0]] = stamped[_NANOSECONDS[1]] = _INT.pack(nanoseconds)
    return stamped
