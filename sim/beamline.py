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
from ptychostream.scans.scan import Reconstruction, Scan
from ptychostream.scans.scan_writer import ScanWriter
from ptychostream.sim.diffraction import Simulation, simulate_scan
from ptychostream.sim.replay.connections import drain
from ptychostream.sim.replay.detector import Detector, Streamed, scan_arrays
from ptychostream.sim.replay.gate import Gate
from ptychostream.sim.replay.index_stream import PositionSender
from ptychostream.sim.replay.position_stream import PositionStreamSettings, serve_positions
from ptychostream.sim.replay.replay import check_codec
from ptychostream.sim.samples import SAMPLES, check_sample
from ptychostream.sim.scan_records import ScanRecords

MAX_SCAN_BYTES = 2 << 30
"""The largest scan. It is simulated in memory before it is streamed."""

MAX_POINTS = 100_000

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
        The simulated scan. The records Frames, Step, Dose, Sample and Seed change it from scan to scan.
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
                number += 1
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
            put("Message_RBV", str(error)[:500])
            put("State_RBV", State.FAILED)
        put("Start", 0)
        put("Abort", 0)
        self._busy = False
        put("Busy_RBV", 0)
        put("Complete_RBV", int(complete))
        return complete

    def _scan(self, number: int) -> bool:
        put, settings = self._records.put, self.settings
        put("State_RBV", State.PREPARING)
        simulation = self._simulation(number)
        scan_id = f"{simulation.sample}_{number:04d}"
        put("ScanID_RBV", scan_id)
        put("ScanNumber_RBV", number)
        put("FramesSent_RBV", 0)
        self._on_stage(f"{scan_id}: simulating", simulation.frames)
        scan, truth = simulate_scan(simulation, scan_id, self._on_step)
        unit_m = UNIT_M["um"]  # the records' EGU
        put("PositionX_RBV", (scan.positions_m[:, 0] / unit_m).tolist())
        put("PositionY_RBV", (scan.positions_m[:, 1] / unit_m).tolist())
        put("State_RBV", State.WAITING)
        if settings.gate.wait(self._interrupt):
            put("State_RBV", State.STREAMING)
        times, streamed = self._stream(scan, float(self._records.get("FrameRate")))
        put("FramesSent_RBV", streamed.frames)
        put("Rate_RBV", streamed.rate_hz)
        put("State_RBV", State.SAVING)
        path = (
            self._save(scan, truth, times, streamed.first_id) if settings.save is not None and streamed.frames else None
        )
        if path is not None:
            put("FullFileName_RBV", str(path))
        drain(self._interrupt)  # Busy becomes 0 when the clients have all frames
        complete = streamed.frames == len(scan)
        message = f"{scan_id}: {streamed.frames} of {len(scan)} frames at {streamed.rate_hz:.1f} frames/s"
        message += f", {path}" if path is not None else ""
        put("Message_RBV", message)
        put("State_RBV", State.IDLE if complete else State.ABORTED)
        log.info(message)
        return complete

    def _simulation(self, number: int) -> Simulation:
        """The simulation with the values of the records. Each scan has another sample and other noise."""
        get, base = self._records.get, self.settings.simulation
        scan = number - self._first_number
        simulation = base.model_copy(
            update={
                "frames": int(get("Frames")),
                "step_m": float(get("Step")) * 1e-9,
                "dose": float(get("Dose")),
                "sample": KINDS[int(get("Sample"))],
                "sample_seed": int(get("Seed")) + scan,
                "seed": base.seed + scan,
            }
        )
        size = simulation.frames * simulation.size**2 * np.dtype(simulation.dtype).itemsize
        if size > MAX_SCAN_BYTES:
            raise ConfigError(
                f"{simulation.frames} frames of {simulation.size}×{simulation.size} are {size / 2**30:.1f} GiB",
                where="Frames",
                remedy=f"take at most {MAX_SCAN_BYTES / 2**30:g} GiB a scan",
            )
        return simulation

    def _stream(self, scan: Scan, rate_hz: float) -> tuple[NDArray[np.float64], Streamed]:
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
        )
        streamed = self._detector.stream(arrays, rate_hz, self._interrupt, sent)
        self._complete = self.settings.adcore and streamed.frames == len(scan)
        if positions is not None:
            positions.end()
        self._on_step(streamed.frames, len(scan))
        return times[: streamed.frames], streamed

    def _save(self, scan: Scan, truth: Reconstruction, times: NDArray[np.float64], first_id: int) -> Path:
        """Write the streamed frames like areaDetector's file plugin, and the truth beside it as a reconstruction."""
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
                writer.append(scan.counts[index], first_id + index, float(time_s), float(x_m), float(y_m))
                self._on_step(index + 1, len(times))
        write_reconstruction(path.with_name(f"{scan.scan_id}_truth.h5"), truth)
        return path


def next_scan_number(folder: Path) -> int:
    """The highest number of a scan file in `folder` plus one, so that no file is overwritten."""
    numbers = [int(found[1]) for path in folder.glob("*.h5") if (found := re.search(r"_(\d+)$", path.stem))]
    return max(numbers, default=0) + 1
