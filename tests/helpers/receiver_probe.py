"""A process that receives: one JSON line on stdout for every frame, bad frame and change of connection.

Its arguments: `ReceiverSettings` as JSON; "compiled" or "p4p".
"""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Sequence

import numpy as np

from ptychostream.errors import FrameError
from ptychostream.frames.frames import Frame
from ptychostream.frames.intake import Intake
from ptychostream.plugins.receiver import Receiver, ReceiverSettings
from ptychostream.pva.array_monitor import ArrayMonitor
from ptychostream.pva.monitors import P4pMonitor
from ptychostream.statements.quantities import REGION

_speaking = threading.Lock()
_intakes: list[Intake] = []


def say(**words: object) -> None:
    with _speaking:
        print(json.dumps(words), flush=True)


def frames(frames: Sequence[Frame]) -> None:
    for one in frames:
        frame(one)


def frame(frame: Frame) -> None:
    say(
        event="frame",
        id=frame.id,
        scan=frame.scan,
        time=frame.time,
        delay=frame.received - frame.time,
        shape=frame.counts.shape,
        dtype=str(frame.counts.dtype),
        sum=int(frame.counts.astype(np.int64).sum()),
        attributes=dict(frame.attributes),
        region=[_intakes[0].watch.description.value(name) for name in REGION],
    )


def bad(error: FrameError) -> None:
    say(event="bad", cause=error.cause.value, text=str(error))


def main() -> None:
    told = json.loads(sys.argv[1])
    settings = ReceiverSettings(channel=told["channel"])
    intake = Intake(told.get("scan_attribute", "ScanID"), further=told.get("attributes", ()))
    _intakes.append(intake)
    monitor = P4pMonitor if sys.argv[2] == "p4p" else ArrayMonitor
    assert monitor is not None
    receiver = Receiver(
        settings, intake, frames, bad, lambda connected: say(event="connected", value=connected), monitor
    )
    say(event="started")
    receiver.start()
    for line in sys.stdin:
        intake.unnamed = line.strip()
        say(event="scan", value=intake.unnamed)
    receiver.stop()
    say(event="stopped", connected=receiver.connected)


if __name__ == "__main__":
    main()
