"""Receives many channels at once, in every way there is: `python emitter_probe.py`, told the channels on stdin.

Its input is JSON, {channel: {"attributes": [names], "updates": number, "empty": how many of these, "pvapy": whether to
receive it through pvapy as well}}. When all came, or
30 s have passed since, it prints what did: {channel: {"receiver": […], "pvapy": […]}}, frames, refused updates and
empty ones in order. A receiver passes over the empty ones. Its argument is the kind of receiver, "compiled" or "p4p".
"""

from __future__ import annotations

import hashlib
import json
import sys
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import pvaccess as pva
from numpy.typing import NDArray

from ptychostream.errors import FrameError
from ptychostream.frames.frames import Frame
from ptychostream.frames.intake import Intake
from ptychostream.plugins.consumer.pvapy_reading import decode
from ptychostream.plugins.receiver import Receiver, ReceiverSettings
from ptychostream.pva.array_monitor import ArrayMonitor
from ptychostream.pva.monitors import P4pMonitor
from ptychostream.pva.reading import UPDATE_FIELDS

Heard = list[dict[str, Any]]


def seen(counts: NDArray[Any], number: int, time_s: float, attributes: dict[str, Any]) -> dict[str, Any]:
    """The manifest's words for a frame."""
    little = np.ascontiguousarray(counts, counts.dtype.newbyteorder("<"))
    return {
        "is": "frame",
        "dtype": counts.dtype.name,
        "shape": list(counts.shape),
        "sha256": hashlib.sha256(little.tobytes()).hexdigest(),
        "id": number,
        "time": time_s,
        "attributes": attributes,
    }


def refused(error: FrameError) -> dict[str, Any]:
    return {"is": "refused", "cause": error.cause.value, "text": str(error)}


def receive(channel: str, names: list[str], heard: Heard) -> Receiver:
    settings, intake = ReceiverSettings(channel=channel), Intake("", further=names)

    def take(frames: Sequence[Frame]) -> None:
        for frame in frames:
            # where the emitter gave no time, the frame has that of its arrival
            time_s = 0.0 if frame.time == frame.received else frame.time
            heard.append(seen(frame.counts, frame.id, time_s, dict(frame.attributes)))

    monitor = P4pMonitor if sys.argv[1] == "p4p" else ArrayMonitor
    assert monitor is not None
    receiver = Receiver(
        settings,
        intake,
        take,
        lambda error: heard.append(refused(error)),
        lambda _: receiver.held.empty(),  # a recording of one update is a frame here, and no image of the past
        monitor,
    )
    receiver.start()
    return receiver


def through_pvapy(updates: pva.PvObjectQueue, names: list[str]) -> Heard:
    heard: Heard = []
    while True:
        try:
            update = updates.get()
        except pva.QueueEmpty:
            return heard
        try:
            raw = decode(update, names)
        except FrameError as error:
            heard.append(refused(error))
            continue
        except Exception as error:  # noqa: BLE001 - to be told, not to end the others
            heard.append({"is": "broken", "text": repr(error)})
            continue
        if raw is None:
            heard.append({"is": "empty"})
        else:
            heard.append(seen(raw.array, raw.raw_id, raw.time, dict(raw.attributes)))


def main() -> None:
    wanted: dict[str, dict[str, Any]] = json.loads(sys.stdin.readline())
    request = f"record[queueSize=100]{UPDATE_FIELDS}"
    received: dict[str, Heard] = {channel: [] for channel in wanted}
    receivers = [receive(channel, what["attributes"], received[channel]) for channel, what in wanted.items()]
    queues = {channel: pva.PvObjectQueue(100) for channel, what in wanted.items() if what["pvapy"]}
    channels = [pva.Channel(channel, pva.PVA) for channel in queues]
    for channel in channels:
        channel.qMonitor(queues[channel.getName()], request)

    def all_came() -> bool:
        whole = (len(heard) >= wanted[channel]["updates"] for channel, heard in queues.items())
        frames = (
            len(heard) >= wanted[channel]["updates"] - wanted[channel]["empty"] for channel, heard in received.items()
        )
        return all(whole) and all(frames)

    sys.stdin.readline()  # all is sent
    deadline = time.monotonic() + 30
    while not all_came() and time.monotonic() < deadline:
        time.sleep(0.05)
    for channel in channels:
        channel.stopMonitor()
    for receiver in receivers:
        receiver.stop()
    answer: dict[str, dict[str, Heard]] = {channel: {"receiver": heard} for channel, heard in received.items()}
    for channel, queue in queues.items():
        answer[channel]["pvapy"] = through_pvapy(queue, wanted[channel]["attributes"])
    print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
