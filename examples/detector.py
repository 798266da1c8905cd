"""A detector in 20 lines: a disc that drifts, sent as NTNDArrays with positions in metres; Ctrl-C ends it."""

import sys
import time

import numpy as np
from p4p.nt import NTNDArray
from p4p.server import Server
from p4p.server.thread import SharedPV

channel = sys.argv[1] if len(sys.argv) > 1 else "test:Pva1:Image"
image = NTNDArray()
rows, columns = np.mgrid[-32:32, -32:32]
pv = SharedPV(initial=image.wrap(np.zeros((64, 64), np.uint16)))
with Server(providers=[{channel: pv}]):
    for number in range(10**9):
        frame = number % 200  # of a scan of 20 x 10 positions
        x, y = frame % 20, frame // 20
        counts = np.random.poisson(100.0 * (np.hypot(rows - y + 5, columns - x + 10) < 12)).astype(np.uint16)
        scan = {"ScanID": str(number // 200), "ScanComplete": int(frame == 199)}
        place = {"PositionX": 50e-9 * x, "PositionY": 50e-9 * y}
        update = image.wrap(counts, attrib={**place, **scan}, timestamp=time.time())
        update.uniqueId = number % 2**31
        pv.post(update)
        time.sleep(0.01)  # 100 frames a second, at most
