"""The simulated beamline: scan records, a sample, a detector that streams its patterns, and a file for each scan."""

from __future__ import annotations

import logging
import queue
import re
import threading
from collections.abc import Callable
from contextlib import ExitStack
from enum import IntEnum
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from ptychostream.config import Settings
from ptychostream.errors import ConfigError, PtychostreamError
from ptychostream.positions.positions import UNIT_M
from ptychostream.scans.reconstruction_file import write_reconstruction
from ptychostream.scans.scan import Scan
from ptychostream.scans.scan_writer import ScanWriter
from ptychostream.sim.diffraction import Simulation, set_up, simulate_scan
from ptychostream.sim.replay.connections import drain
from ptychostream.sim.replay.detector import Detector, Streamed, scan_arrays
from ptychostream.sim.replay.gate import Gate
from ptychostream.sim.replay.index_stream import PositionSender
from ptychostream.sim.replay.position_stream import PositionStreamSettings, serve_positions
from ptychostream.sim.replay.replay import check_codec
from ptychostream.sim.samples import SAMPLES, check_sample
from ptychostream.sim.scan_parts import Part, ScanParts, points_m
from ptychostream.sim.scan_records import ScanRecords

MAX_SCAN_BYTES = 2 << 30
"""The largest scan. It is simulated in memory before it is streamed."""

MAX_POINTS = 100_000

_NEXT_PART = 1_000_003
"""Between the seeds of a scan's parts."""

_STALE = 2
"""So many first frames still carry the end of the scan before."""

KINDS = tuple(SAMPLES)
"""Choices of the record `Sample`."""

log = logging.getLogger(__name__)


class State(IntEnum):
    """Choices of the record `State_RBV`."""

    IDLE = 0
    PREPARING = 1
    WAITING = 2
    STREAMING = 3
    SAVING = 4
    ABORTED = 5
    FAILED = 6
    OPEN = 7


class BeamlineSettings(Settings):
    """Settings of the simulated beamline.

    Attributes
    ----------
    prefix
        Prefix of the scan records.
    channel
        PVA channel of the detector. Empty: `<prefix>Pva1:Image`.
    rate_hz, codec, position_unit, gate
        See `ptychostream.sim.replay.replay.Replay`.
    positions
        Positions as "attributes" of the frames, as a separate "stream" by time (see `position_stream`), or "both"; by
        "index" on a channel; or from a simulated PandABox ("panda").
    adcore
        Stream as areaDetector does: frame ids begin at 1 and go on from scan to scan, and `ScanComplete` is a level,
        which the first frames of the next scan still carry. Else ids begin at 0 in every scan, and `ScanComplete` is 1
        in the last frame alone.
    save
        Folder of the HDF5 files. None saves nothing.
    autostart
        Whether to take scans one after the other without a command.
    scans
        Number of scans before the process ends. 0: until stopped.
    ca_port
        Channel Access port of the scan records. None: EPICS's own variables decide.
    simulation
        The simulated scan. The records Frames, Step, Dose, Sample and Seed change it from scan to scan; PointsX and
        PointsY replace its trajectory.
    """

    prefix: str = "bl:"
    channel: str = ""
    rate_hz: float = Field(100.0, gt=0)
    codec: str = ""
    position_unit: Literal["m", "mm", "um", "nm"] = "m"
    gate: Gate = Gate()
    positions: Literal["attributes", "stream", "both", "index", "panda"] = "attributes"
    position_stream: PositionStreamSettings = PositionStreamSettings()
    adcore: bool = True
    save: Path | None = None
    autostart: bool = False
    scans: int = Field(0, ge=0)
    ca_port: int | None = Field(None, ge=1, le=65535)
    simulation: Simulation = Simulation()

    @property
    def image_channel(self) -> str:
        return self.channel or f"{self.prefix}Pva1:Image"

    @property
    def position_channel(self) -> str:
        return self.position_stream.channel or f"{self.prefix}Pva1:Positions"


class Beamline:
    """Takes scans on command until it is stopped.

    Parameters
    ----------
    settings
        Settings of the beamline.
    on_stage
        Called with (name, number of steps) when a stage of a scan begins.
    on_step
        Called with (steps done, number of steps) during the stage.
    """

    def __init__(
        self,
        settings: BeamlineSettings,
        on_stage: Callable[[str, int], None] = lambda _what, _steps: None,
        on_step: Callable[[int, int], None] = lambda _done, _steps: None,
    ) -> None:
        check_codec(settings.codec)
        check_sample(settings.simulation.sample)
        self.settings = settings
        self._on_stage, self._on_step = on_stage, on_step
        self._starts: queue.Queue[bool] = queue.Queue()
        self._interrupt = threading.Event()  # ends the running scan
        self._stopped = False
        self._busy = False
        self._complete = False  # the attribute ScanComplete is up
        self._first_number = next_scan_number(settings.save) if settings.save is not None else 1
        self._parts = ScanParts()
        self._samples = -1  # samples since the start, less one
        self._records: ScanRecords
        self._detector: Detector
        self._position_stream: PositionSender | None = None

    def run(self, on_serving: Callable[[str], None] | None = None) -> int:
        """Serve until `stop` is called or all scans are taken. Returns the number of complete scans."""
        settings = self.settings
        complete = 0
        with (
            ScanRecords(settings.prefix, settings.image_channel, MAX_POINTS, settings.ca_port) as self._records,
            Detector(settings.image_channel, adcore=settings.adcore) as self._detector,
            ExitStack() as ended,
        ):
            self._position_stream = serve_positions(
                self._detector,
                settings.positions,
                settings.position_channel,
                settings.position_stream,
                settings.position_unit,
            )
            if self._position_stream is not None:
                ended.callback(self._position_stream.stop)
            self._put_setpoints()
            self._records.watch({"Start": self._start, "Abort": self._interrupt.set})
            if on_serving is not None:
                streamed = "" if self._position_stream is None else f", positions on {settings.position_channel}"
                on_serving(f"scan records {settings.prefix}, frames on {settings.image_channel}{streamed}")
            number = self._first_number
            while settings.scans == 0 or number - self._first_number < settings.scans:
                if not settings.autostart:
                    self._starts.get()
                if self._stopped:
                    break
                complete += self._take(number)
                number += not self._parts.scan_id
            if self._parts.taken and settings.save is not None:  # stopped while a scan was open
                self._save(self._parts.joined())
        return complete

    def stop(self) -> None:
        """End the running scan and `run`. It may be called from any thread."""
        self._stopped = True
        self._interrupt.set()
        self._starts.put(False)

    def _start(self) -> None:
        if self._busy:
            log.warning("a scan is running: Start is ignored")
        else:
            self._starts.put(True)

    def _put_setpoints(self) -> None:
        simulation = self.settings.simulation
        self._records.put("Frames", simulation.frames)
        self._records.put("FrameRate", self.settings.rate_hz)
        self._records.put("Step", simulation.step_m * 1e9)
        self._records.put("Dose", simulation.dose)
        self._records.put("Sample", KINDS.index(simulation.sample))
        self._records.put("Seed", simulation.sample_seed)

    def _take(self, number: int) -> bool:
        """Take one scan and write its result to the records. Returns whether it is complete."""
        put = self._records.put
        self._busy = True
        self._interrupt.clear()
        if self._stopped:
            self._interrupt.set()
        put("Complete_RBV", 0)
        put("Busy_RBV", 1)
        put("Message_RBV", "")
        put("Start", 0)
        complete = False
        try:
            complete = self._scan(number)
        except PtychostreamError as error:
            log.error("scan %d: %s", number, error)
            self._parts.close()
            put("Message_RBV", str(error)[:500])
            put("State_RBV", State.FAILED)
        put("Start", 0)
        put("Abort", 0)
        self._busy = False
        put("Busy_RBV", 0)
        put("Complete_RBV", int(complete))
        return complete

    def _scan(self, number: int) -> bool:
        """Take the next part of a scan, which is all of it where it is not left open."""
        put, settings, parts = self._records.put, self.settings, self._parts
        put("State_RBV", State.PREPARING)
        points = points_m(self._records.get("PointsX"), self._records.get("PointsY"))
        more = bool(self._get("MorePoints"))
        if more and settings.positions in ("index", "panda"):
            remedy = "set MorePoints to Last, or take positions from attributes or from a stream by time"
            raise ConfigError("a scan in parts has no positions by index", where="MorePoints", remedy=remedy)
        if not parts.scan_id and (self._samples < 0 or not self._get("SameSample")):
            self._samples += 1
        simulation = self._simulation(number, None if points is None else len(points))
        scan_id = parts.scan_id or f"{simulation.sample}_{number:04d}"
        parts.scan_id = scan_id
        put("ScanID_RBV", scan_id)
        put("ScanNumber_RBV", number)
        put("FramesSent_RBV", parts.frames)
        self._on_stage(f"{scan_id}: simulating", simulation.frames)
        bench = set_up(simulation, points, parts.bench)
        scan, truth = simulate_scan(simulation, scan_id, self._on_step, bench)
        unit_m = UNIT_M["um"]  # the records' EGU
        places_m = np.concatenate([*(part.scan.positions_m for part in parts.taken), scan.positions_m])
        put("PositionX_RBV", (places_m[:, 0] / unit_m).tolist())
        put("PositionY_RBV", (places_m[:, 1] / unit_m).tolist())
        put("State_RBV", State.WAITING)
        if settings.gate.wait(self._interrupt):
            put("State_RBV", State.STREAMING)
        times, streamed = self._stream(scan, float(self._get("FrameRate")), more)
        if streamed.frames:
            parts.taken.append(Part(bench, scan, truth, times, streamed.first_id))
        put("FramesSent_RBV", parts.frames)
        put("Rate_RBV", streamed.rate_hz)
        put("State_RBV", State.SAVING)
        whole = streamed.frames == len(scan)
        stays_open = whole and more
        frames = parts.frames
        path = self._save(parts.joined()) if settings.save is not None and frames and not stays_open else None
        if path is not None:
            put("FullFileName_RBV", str(path))
        if not stays_open:
            parts.close()
        drain(self._interrupt)  # Busy becomes 0 when the clients have all frames
        message = f"{scan_id}: {streamed.frames} of {len(scan)} frames at {streamed.rate_hz:.1f} frames/s"
        message += f", {frames} in all" if frames > streamed.frames else ""
        message += f", {path}" if path is not None else ""
        put("Message_RBV", message)
        put("State_RBV", State.OPEN if stays_open else State.IDLE if whole else State.ABORTED)
        log.info(message)
        return whole and not more

    def _get(self, name: str) -> float:
        return float(self._records.get(name))

    def _simulation(self, number: int, points: int | None) -> Simulation:
        """The simulation with the values of the records. Each scan has another sample and other noise.

        `points` is the number of points that replace the trajectory; None: none do.
        """
        base, scan = self.settings.simulation, number - self._first_number
        simulation = base.model_copy(
            update={
                "frames": int(self._get("Frames")) if points is None else points,
                "step_m": self._get("Step") * 1e-9,
                "dose": self._get("Dose"),
                "sample": KINDS[int(self._get("Sample"))],
                "sample_seed": int(self._get("Seed")) + self._samples,
                "seed": base.seed + scan + _NEXT_PART * len(self._parts.taken),
            }
        )
        size = (simulation.frames + self._parts.frames) * simulation.size**2 * np.dtype(simulation.dtype).itemsize
        if size > MAX_SCAN_BYTES:
            raise ConfigError(
                f"{simulation.frames} frames of {simulation.size}×{simulation.size} are {size / 2**30:.1f} GiB",
                where="Frames",
                remedy=f"take at most {MAX_SCAN_BYTES / 2**30:g} GiB a scan",
            )
        return simulation

    def _stream(self, scan: Scan, rate_hz: float, more: bool) -> tuple[NDArray[np.float64], Streamed]:
        times = np.zeros(len(scan))
        self._on_stage(f"{scan.scan_id}: streaming", len(scan))
        shown = 0.0
        positions = self._position_stream
        if positions is not None:
            positions.begin(scan.positions_m)

        def sent(frame: int, time_s: float) -> None:
            nonlocal shown
            times[frame] = time_s
            if positions is not None:
                positions.frame(frame, time_s)
            if time_s - shown > 0.5:
                shown = time_s
                self._on_step(frame + 1, len(scan))
                self._records.put("FramesSent_RBV", frame + 1)

        arrays = scan_arrays(
            scan,
            scan_id=scan.scan_id,
            codec=self.settings.codec,
            unit_m=UNIT_M[self.settings.position_unit],
            with_positions=self.settings.positions in ("attributes", "both"),
            stale=_STALE if self._complete else 0,
            ends=not more,
        )
        streamed = self._detector.stream(arrays, rate_hz, self._interrupt, sent, goes_on=self._parts.frames > 0)
        self._complete = self.settings.adcore and streamed.frames == len(scan) and not more
        if positions is not None:
            positions.end()
        self._on_step(streamed.frames, len(scan))
        return times[: streamed.frames], streamed

    def _save(self, part: Part) -> Path:
        """Write the streamed frames like areaDetector's file plugin, and the truth beside it as a reconstruction."""
        scan, times = part.scan, part.times_s
        assert self.settings.save is not None
        path = self.settings.save.resolve() / f"{scan.scan_id}.h5"
        height, width = scan.counts.shape[1:]
        self._on_stage(f"{scan.scan_id}: saving", len(times))
        with ScanWriter(
            path,
            (height, width),
            scan.counts.dtype,
            energy_ev=scan.energy_ev,
            distance_m=scan.distance_m,
            detector_pixel_m=scan.detector_pixel_m,
            scan_id=scan.scan_id,
            bad_pixels=scan.bad_pixels,
            probe=scan.probe,
            metadata=scan.metadata,
        ) as writer:
            for index, time_s in enumerate(times):
                x_m, y_m = scan.positions_m[index]
                writer.append(scan.counts[index], part.first_id + index, float(time_s), float(x_m), float(y_m))
                self._on_step(index + 1, len(times))
        write_reconstruction(path.with_name(f"{scan.scan_id}_truth.h5"), part.truth)
        return path


def next_scan_number(folder: Path) -> int:
    """The highest number of a scan file in `folder` plus one, so that no file is overwritten."""
    numbers = [int(found[1]) for path in folder.glob("*.h5") if (found := re.search(r"_(\d+)$", path.stem))]
    return max(numbers, default=0) + 1
