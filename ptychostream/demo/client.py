"""A PVA client that stores the IOC's newest stitched image in a file.

`python -m ptychostream.demo.client PREFIX FILE [SERIES]` subscribes to `<PREFIX>Phase` and `<PREFIX>Weight`. It writes
each pair with the same uniqueId to FILE (npz), until SIGTERM. With SERIES it subscribes to `<PREFIX>Refined` as well,
and writes all images with their times to that file at its end.
"""

from __future__ import annotations

import queue
import signal
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from p4p.client.thread import Context

from ptychostream.demo.series import REFINED, Series
from ptychostream.imaging.phase_image import PhaseImage, canvas_origin_m, canvas_part
from ptychostream.storage.atomic import atomic_path

PHASE, WEIGHT = "Phase", "Weight"
_STOP = ""


def image_of(value: Any) -> tuple[int, NDArray[np.float32], dict[str, Any]] | None:
    """uniqueId, [H, W] array and attributes of an image. None for the value before the first image."""
    if not value.uniqueId:
        return None
    columns, rows = (dimension.size for dimension in value.dimension)
    attributes = {attribute.name: attribute.value for attribute in value.attribute}
    return value.uniqueId, np.asarray(value.value, np.float32).reshape(rows, columns), attributes


def watch(prefix: str, path: Path, series: Path | None = None) -> int:
    """Subscribe and write until SIGTERM. Returns the number of written images."""
    seen = Series() if series is not None else None
    updates: queue.Queue[tuple[str, Any]] = queue.Queue(maxsize=64)
    signal.signal(signal.SIGTERM, lambda *_: updates.put((_STOP, None)))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the demonstration ends its children itself
    newest: dict[str, tuple[int, NDArray[np.float32], dict[str, Any]]] = {}
    written = 0
    with Context("pva", nt=False) as context:
        subscriptions = [
            context.monitor(f"{prefix}{name}", lambda value, name=name: updates.put((name, value)))
            for name in (PHASE, WEIGHT, *([REFINED] if seen else []))
        ]
        while True:
            name, value = updates.get()
            if name == _STOP:
                break
            if (image := image_of(value)) is None:
                continue
            if seen is not None and name == REFINED:
                seen.add(name, image[1], image[2])
                continue
            newest[name] = image
            if len(newest) == 2 and newest[PHASE][0] == newest[WEIGHT][0]:
                _write(path, newest[PHASE], newest[WEIGHT])
                written += 1
                if seen is not None:
                    seen.add(PHASE, np.where(newest[WEIGHT][1] > 0, newest[PHASE][1], np.nan), newest[PHASE][2])
        for subscription in subscriptions:
            subscription.close()
    if seen is not None and series is not None:
        seen.write(series)
    return written


def _write(
    path: Path,
    phase: tuple[int, NDArray[np.float32], dict[str, Any]],
    weight: tuple[int, NDArray[np.float32], dict[str, Any]],
) -> None:
    attributes = phase[2]
    part = canvas_part(attributes)
    with atomic_path(path) as partial, partial.open("wb") as file:
        np.savez(
            file,
            phase=phase[1][part],
            weight=weight[1][part],
            origin_m=np.array(canvas_origin_m(attributes)),
            pixel_m=np.array(attributes["PixelSize"]),
            frames=np.array(attributes["FramesStitched"]),
            scan=np.array(attributes["ScanID"]),
        )


@dataclass(frozen=True)
class Received:
    """The client's image (NaN where the weight is 0), the number of its frames, and its scan."""

    image: PhaseImage
    frames: int
    scan: str


def read_received(path: Path) -> Received | None:
    """The image that the client wrote last, or None before the first."""
    if not path.exists():
        return None
    with np.load(path, allow_pickle=False) as file:
        weight = file["weight"]
        phase = np.where(weight > 0, file["phase"], np.nan).astype(np.float32)
        origin = file["origin_m"]
        image = PhaseImage(phase, weight, (float(origin[0]), float(origin[1])), float(file["pixel_m"]))
        return Received(image, int(file["frames"]), str(file["scan"]))


if __name__ == "__main__":
    sys.exit(0 if watch(sys.argv[1], *map(Path, sys.argv[2:])) else 1)
