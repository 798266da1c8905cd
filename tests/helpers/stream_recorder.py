"""A pvapy client in a process of its own: records every update of an NTNDArray channel.

`python tests/helpers/stream_recorder.py CHANNEL FILE COUNT` prints "subscribed" when the first, empty update is here,
and ends with what it got in FILE (npz) once COUNT frames came, or on SIGTERM.
"""

from __future__ import annotations

import signal
import sys
import time

import numpy as np
import pvaccess as pva

from ptychostream.plugins.consumer.pvapy_reading import decode
from ptychostream.pva.reading import UPDATE_FIELDS

NAMES = ("PositionX", "PositionY", "ScanID", "ScanComplete")


def main(channel_name: str, path: str, count: int) -> None:
    stopped: list[int] = []
    signal.signal(signal.SIGTERM, lambda *_: stopped.append(1))
    updates, channel = pva.PvObjectQueue(20_000), pva.Channel(channel_name, pva.PVA)
    channel.qMonitor(updates, f"record[queueSize=5000]{UPDATE_FIELDS}")
    frames, codecs, late = [], [], []
    while len(frames) < count and not stopped:
        try:
            update = updates.get(0.1)
        except pva.QueueEmpty:
            continue
        raw = decode(update, NAMES)
        if raw is None:
            print("subscribed", flush=True)
            continue
        frames.append(raw)
        codecs.append(update["codec.name"])
        late.append(time.time() - raw.time)
    channel.stopMonitor()
    np.savez(
        path,
        counts=np.array([frame.array for frame in frames]),
        ids=np.array([frame.raw_id for frame in frames]),
        times=np.array([frame.time for frame in frames]),
        positions=np.array([[frame.attributes["PositionX"], frame.attributes["PositionY"]] for frame in frames]),
        scan_ids=np.array([frame.attributes["ScanID"] for frame in frames]),
        complete=np.array([frame.attributes["ScanComplete"] for frame in frames]),
        codecs=np.array(codecs),
        late=np.array(late),
    )


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
