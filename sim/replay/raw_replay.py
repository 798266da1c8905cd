"""Replay recorded PVA updates byte for byte."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from pydantic import Field

from ptychostream.config import Settings
from ptychostream.errors import ScanFileError
from ptychostream.rawpva.raw_server import RawServer
from ptychostream.rawpva.raw_updates import RawFile
from ptychostream.rawpva.raw_values import RawUpdate
from ptychostream.sim.replay.connections import drain
from ptychostream.sim.replay.detector import Streamed
from ptychostream.sim.replay.gate import Gate

_log = logging.getLogger(__name__)
_COME_BACK_S = 10.0  # time for clients to reconnect after a change of the channel's type
_POLL_S = 0.02


class RawReplay(Settings):
    """Settings of a replay of recorded updates.

    Attributes
    ----------
    channel
        PVA channel to serve. Empty: the name of the recorded one.
    rate_hz
        Updates per second. None: the times of the recording.
    loops
        Passes over the file. 0 repeats until stopped.
    gate
        Conditions for the first update.
    """

    channel: str = ""
    rate_hz: float | None = Field(None, gt=0)
    loops: int = Field(1, ge=0)
    gate: Gate = Gate()


def replay_raw(
    path: str | Path,
    settings: RawReplay,
    stop: threading.Event,
    on_serving: Callable[[str], None] | None = None,
    on_pass: Callable[[str, int], None] | None = None,
    on_sent: Callable[[int, float], None] | None = None,
) -> list[tuple[str, Streamed]]:
    """Serve the updates of `path` until all are sent or `stop` is set.

    Before the first update the channel exists with its type and sends nothing. Times and ids in the updates are those
    of the recording.

    Parameters
    ----------
    on_serving
        Called once with a description of the channel, before the gate.
    on_pass
        Called with (channel, number of updates) when a pass begins.
    on_sent
        Called with (number of the update from 0, POSIX time) for each update.

    Returns
    -------
    (channel, `Streamed`) of each pass.

    Raises
    ------
    ScanFileError, StreamError
    """
    passes: list[tuple[str, Streamed]] = []
    with RawFile(path) as recording:
        channel = settings.channel or recording.channel
        if recording.torn:
            _log.warning("%s ends within an update: %d bytes left out", path, recording.torn)
        first = next(iter(recording), None)
        if first is None:
            raise ScanFileError("has no update", where=str(path), remedy="record while the channel sends")
        with RawServer([channel]) as server:
            server.announce(channel, first)
            if on_serving is not None:
                pace = "as recorded" if settings.rate_hz is None else f"{settings.rate_hz:g} updates/s"
                on_serving(f"{channel}: {recording.updates} recorded updates, {pace}")
            if not settings.gate.wait(stop):
                return passes
            while not stop.is_set() and (settings.loops == 0 or len(passes) < settings.loops):
                if on_pass is not None:
                    on_pass(channel, recording.updates)
                passes.append((channel, _stream(recording, server, channel, settings.rate_hz, stop, on_sent)))
            drain(stop)
            overruns = server.overruns(channel)
            if overruns:
                _log.warning("%s: %d updates were merged: a client's queue was full", channel, overruns)
    return passes


def _stream(
    recording: RawFile,
    server: RawServer,
    channel: str,
    rate_hz: float | None,
    stop: threading.Event,
    on_sent: Callable[[int, float], None] | None,
) -> Streamed:
    """Send the updates of one pass on an absolute schedule."""
    sent, begin, first, last, late = 0, time.monotonic(), 0.0, 0.0, 0.0
    shown: RawUpdate | None = None
    for update, due_s in schedule(recording, rate_hz):
        if shown is not None and update.type != shown.type:
            _let_clients_come_back(server, channel, update, stop)
        shown = update
        stop.wait(max(0.0, begin + due_s - time.monotonic()))
        if stop.is_set():
            break
        server.publish(channel, update)
        last = time.monotonic()
        first = first if sent else last
        late = max(late, last - begin - due_s)
        if on_sent is not None:
            on_sent(sent, time.time())
        sent += 1
    return Streamed(sent, last - first, late)


def schedule(recording: Iterable[RawUpdate], rate_hz: float | None) -> Iterator[tuple[RawUpdate, float]]:
    """Each update with its time since the first one in seconds: as recorded, or evenly at `rate_hz`."""
    began: int | None = None
    for number, update in enumerate(recording):
        began = update.time_ns if began is None else began
        yield update, (update.time_ns - began) * 1e-9 if rate_hz is None else number / rate_hz


def _let_clients_come_back(server: RawServer, channel: str, update: RawUpdate, stop: threading.Event) -> None:
    """Change the channel's type when all is sent, and wait until the same number of clients has subscribed again."""
    drain(stop)
    wanted = server.monitors(channel)
    server.announce(channel, update)
    deadline = time.monotonic() + _COME_BACK_S
    while server.monitors(channel) < wanted and time.monotonic() < deadline and not stop.wait(_POLL_S):
        pass
