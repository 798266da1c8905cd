"""The client of `bench stream` in a separate process. It monitors the stitched image like a screen.

`python -m ptychostream.benchmarks.stream_client CHANNEL`. It prints one line of JSON when it has subscribed, and one
for each image, until SIGTERM.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any

from p4p.client.thread import Context

from ptychostream.demo.client import image_of
from ptychostream.processes.stopping import stop_on_signals


def main(channel: str) -> None:
    """Print a line for each image until stopped. All lines come from p4p's callback thread."""
    images = -1

    def updated(value: Any) -> None:
        nonlocal images
        if images < 0:
            images = 0
            print(json.dumps({"ready": time.time()}), flush=True)
        image = image_of(value)
        if image is not None:
            _, pixels, attributes = image
            images += 1
            frames = int(attributes["FramesStitched"])
            print(json.dumps({"images": images, "frames": frames, "shape": pixels.shape}), flush=True)

    with Context("pva", nt=False) as context, stop_on_signals() as stop:
        subscription = context.monitor(channel, updated)
        stop.wait()
        subscription.close()


if __name__ == "__main__":
    main(sys.argv[1])
