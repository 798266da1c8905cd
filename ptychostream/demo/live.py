"""The live part of the demonstration: IOC, image client and replayed detector in separate processes."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ptychostream.demo.client import read_received
from ptychostream.demo.page import page, page_line
from ptychostream.demo.processes import Child
from ptychostream.demo.pvs import POLL_S, Pvs, until
from ptychostream.demo.series import REFINED, Seen, read_series
from ptychostream.errors import DropCause
from ptychostream.imaging.phase_image import PhaseImage

CAUSES = tuple(cause.value for cause in DropCause)
READY_TIMEOUT_S = 90.0
SETTLE_TIMEOUT_S = 60.0
REFINE_S = 20.0
"""The refinement may take so long after the scan's end."""
REFINED_OR_STOPPED = (0, 3, 4)
"""States of Refine:Status_RBV in which it does nothing more."""


@dataclass(frozen=True)
class Live:
    """The image that a client received, and the IOC's figures after the end of the scan.

    Attributes
    ----------
    image, refined
        The newest stitched and the newest refined image; None: there was no refined one.
    series
        Every image that the client received, in order.
    """

    image: PhaseImage
    refined: PhaseImage | None
    series: list[Seen]
    frames: dict[str, Any]
    rate_hz: float
    latency_ms: dict[str, float]
    engine: str
    model_version: str
    ready_s: float


@dataclass(frozen=True)
class Stage:
    """PV prefix, detector channel, environment, folder of the logs, and port of the page for browsers."""

    prefix: str
    channel: str
    environment: Mapping[str, str]
    folder: Path
    page_port: int


@contextmanager
def _running_ioc(stage: Stage, model: Path) -> Iterator[tuple[Child, Pvs]]:
    words = ["ioc", "--prefix", stage.prefix, "--input-pv", stage.channel, "--model", str(model), "--refine", "yes"]
    with ExitStack() as stack:
        ioc = stack.enter_context(Child("ptychostream", words, stage.folder / "ioc.log", stage.environment))
        pvs = Pvs(stage.prefix, stage.environment)
        stack.callback(pvs.close)
        yield ioc, pvs


def stream(
    stage: Stage,
    scan: Path,
    model: Path,
    rate_hz: float,
    on_ready: Callable[[float, str], None],
    on_progress: Callable[[int, float, float], None],
) -> Live:
    """Start IOC and client, replay `scan` at `rate_hz`, and return what the client received.

    Parameters
    ----------
    on_ready
        Called with the seconds from the IOC's start until its model is live, and the line that tells of the page.
    on_progress
        Called with (stitched frames, stitched frames/s, p50 latency in ms) while the scan streams.

    Raises
    ------
    DemoError
        A process ended early, or did not reach the expected state in time.
    """
    received = stage.folder / "received.npz"
    received.unlink(missing_ok=True)
    with ExitStack() as stack:
        ioc, pvs = stack.enter_context(_running_ioc(stage, model))
        began = time.monotonic()
        until(lambda: pvs.value("ModelState_RBV") is not None, ioc, READY_TIMEOUT_S, "the IOC's records")
        page_log = stage.folder / "web.log"  # the page starts while the engine is built
        address = stack.enter_context(page(stage.prefix, stage.environment, page_log, stage.page_port))
        client_words = [f"{stage.prefix}", str(received), str(stage.folder / "series.npz")]
        client = Child("ptychostream.demo.client", client_words, stage.folder / "client.log", stage.environment)
        stack.enter_context(client)
        replay_words = ["replay", str(scan), "--pv", stage.channel, "--rate", str(rate_hz)]
        replay_words += ["--wait-for", f"{stage.prefix}Ready_RBV", "--wait-timeout", str(READY_TIMEOUT_S), "--json"]
        detector = Child("ptychostream", replay_words, stage.folder / "replay.log", stage.environment)
        stack.enter_context(detector)
        until(lambda: pvs.value("Ready_RBV"), ioc, READY_TIMEOUT_S, "Ready_RBV")
        ready_s = time.monotonic() - began
        on_ready(ready_s, page_line(address, page_log))
        peak = 0.0
        while detector.running():
            stitched, rate, latency = pvs.get("FramesStitched_RBV", "ArrayRate_RBV", "LatencyP50_RBV")
            peak = max(peak, float(rate))
            on_progress(int(stitched), float(rate), float(latency))
            time.sleep(POLL_S)
        detector.wait(SETTLE_TIMEOUT_S)
        sent = json.loads(detector.log_path.read_text(encoding="utf-8").splitlines()[-1])["sent"]
        until(lambda: _settled(pvs, sent), ioc, SETTLE_TIMEOUT_S, f"all {sent} frames accounted for")
        stitched = int(pvs.get("FramesStitched_RBV")[0])
        until(
            lambda: (newest := read_received(received)) is not None and newest.frames == stitched,
            ioc,
            SETTLE_TIMEOUT_S,
            f"an image of all {stitched} frames at the client",
        )
        on_progress(stitched, peak, float(pvs.get("LatencyP50_RBV")[0]))
        _until_refined(pvs, ioc)
        final = read_received(received)
        assert final is not None
        client.stop()
        return _live(pvs, final.image, read_series(stage.folder / "series.npz"), peak, ready_s, sent)


def _until_refined(pvs: Pvs, ioc: Child) -> None:
    """Wait until the refinement has nothing to do for a second, or took `REFINE_S`; it is then left as it is."""
    began = idle_since = time.monotonic()

    def over() -> bool:
        nonlocal idle_since
        now = time.monotonic()
        if pvs.value("Refine:Status_RBV") not in REFINED_OR_STOPPED:
            idle_since = now
        return now - idle_since > 1.0 or now - began > REFINE_S

    until(over, ioc, 2 * REFINE_S, "the refinement")


def _live(pvs: Pvs, image: PhaseImage, series: list[Seen], rate_hz: float, ready_s: float, sent: int) -> Live:
    names = ("FramesReceived_RBV", "FramesStitched_RBV", "FramesPending_RBV", "FramesMissed_RBV")
    received, stitched, pending, missed = (int(value) for value in pvs.get(*names))
    dropped = {
        cause: int(value) for cause, value in zip(CAUSES, pvs.get(*(f"Dropped{c}_RBV" for c in CAUSES)), strict=True)
    }
    p50, p95, p99 = (float(value) for value in pvs.get("LatencyP50_RBV", "LatencyP95_RBV", "LatencyP99_RBV"))
    engine, version = pvs.get("EngineName_RBV", "ModelVersion_RBV")
    return Live(
        image=image,
        refined=next((seen.image for seen in reversed(series) if seen.name == REFINED), None),
        series=series,
        frames={
            "sent": sent,
            "received": received,
            "stitched": stitched,
            "pending": pending,
            "missed": missed,
            "dropped": dropped,
        },
        rate_hz=rate_hz,
        latency_ms={"p50": p50, "p95": p95, "p99": p99},
        engine=str(engine),
        model_version=str(version),
        ready_s=ready_s,
    )


def _settled(pvs: Pvs, sent: int) -> bool:
    received, missed, pending = pvs.get("FramesReceived_RBV", "FramesMissed_RBV", "FramesPending_RBV")
    return int(received) + int(missed) >= sent and int(pending) == 0
