"""Reads Phase and Weight of one moment from the IOC."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from p4p import Value
from p4p.client.asyncio import Context

from ptychostream.errors import StreamError
from ptychostream.imaging.phase_image import PhaseImage, canvas_origin_m, canvas_part

_NAMES = ("Phase", "Weight")


@dataclass(frozen=True)
class Picture:
    """The stitched phase.

    Attributes
    ----------
    image
        Phase and weight; NaN and 0 where nothing was measured.
    scan, frames, sha256
        The scan, the number of its frames in the image, and the sha256 of the model.
    """

    image: PhaseImage
    scan: str
    frames: int
    sha256: str


def picture_of(phase: Value, weight: Value) -> Picture | None:
    """The picture of updates of Phase and Weight; None: they are not of one moment, or before the first frame."""
    said = {attribute["name"]: attribute["value"] for attribute in phase["attribute"]}
    if phase["uniqueId"] != weight["uniqueId"] or not said.get("FramesStitched"):
        return None
    part = canvas_part(said)
    seen = _array(weight)[part]
    shown = np.where(seen > 0, _array(phase)[part], np.nan).astype(np.float32)
    image = PhaseImage(shown, seen, canvas_origin_m(said), float(said["PixelSize"]))
    return Picture(image, str(said["ScanID"]), int(said["FramesStitched"]), str(said["ModelSHA"]))


def _array(value: Value | Mapping[str, Any]) -> NDArray[np.float32]:
    columns, rows = (dimension["size"] for dimension in value["dimension"])
    return np.asarray(value["value"], np.float32).reshape(rows, columns)


async def newest_picture(prefix: str, scan: str, frames: int, timeout_s: float) -> Picture:
    """The first picture of a scan that has at least so many frames.

    Raises
    ------
    StreamError
        There is none within the time limit, s.
    """
    newest: dict[str, Value] = {}
    changed = asyncio.Event()
    found: Picture | None = None

    async def take(name: str, value: Any) -> None:
        if isinstance(value, Value):
            newest[name] = value
            changed.set()

    with Context("pva", nt=False) as context:
        monitors = [context.monitor(f"{prefix}{name}", partial(take, name)) for name in _NAMES]
        try:
            async with asyncio.timeout(timeout_s):
                while found is None or found.scan != scan or found.frames < frames:
                    await changed.wait()
                    changed.clear()
                    if len(newest) == len(_NAMES):
                        found = picture_of(newest["Phase"], newest["Weight"]) or found
        except TimeoutError as error:
            seen = "none" if found is None else f"that of {found.frames} frames of scan {found.scan}"
            what = f"no picture of {frames} frames of scan {scan} within {timeout_s:g} s; the newest is {seen}"
            remedy = "see StatusMessage_RBV and FramesStitched_RBV"
            raise StreamError(what, where=f"{prefix}Phase", remedy=remedy) from error
        finally:
            for monitor in monitors:
                monitor.close()
    return found
