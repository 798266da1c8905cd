"""Waits for the file of a completed scan, opens it, and checks it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from ptychostream.config import Settings
from ptychostream.errors import FileBusyError, FileCutError, FileMissingError, ScanFileError
from ptychostream.frames.survey import survey
from ptychostream.hpc_agent.scans.scan_checks import (
    CheckSettings,
    CollectError,
    FrameStatistics,
    ScanFault,
    blocks_of,
    check_energy,
    check_length,
    check_name,
    fault_of,
    judge,
    measure,
)
from ptychostream.scans.file_names import FileNames, partial_of
from ptychostream.scans.scan_files import ScanOptions, open_scan
from ptychostream.scans.scan_hdf5 import open_hdf5, text
from ptychostream.scans.scan_recording import COMPLETE
from ptychostream.statements.radiation import Radiation

_HDF5_SIGNATURE = b"\x89HDF"


@dataclass(frozen=True)
class ScanEvent:
    """A completed scan.

    Attributes
    ----------
    scan_id
        Its id; empty: not known.
    file
        The file's name as its PV gives it; empty where the stream is recorded.
    energy_ev
        Photon energy, or for electrons the accelerating voltage; None where no PV gives it.
    frames
        Expected number of frames; None where no PV gives it.
    radiation
        "electron" where the unit of the energy's PV is V or kV, else None: as the file and the settings say.
    """

    scan_id: str
    file: str = ""
    energy_ev: float | None = None
    frames: int | None = None
    radiation: Radiation | None = None


class CollectSettings(Settings):
    """How the file of a completed scan is found and checked.

    Attributes
    ----------
    timeout_s
        How long to wait until the file exists and is closed.
    quiet_s
        The file must not have changed for so long, since file systems without locks do not show that it is open.
    poll_s
        Time between two checks of the file.
    silence_s
        How long reading some megabytes may take before the file is given up.
    path_map
        Beginnings of file names on the detector's computer, and their local replacements.
    recordings
        Template of the recordings (`ptychostream record`), for events that name no file.
    scan
        Values that scan files do not contain; see `ptychostream.scans.scan_files.ScanOptions`.
    checks
        See `CheckSettings`.
    """

    timeout_s: float = Field(60.0, gt=0)
    quiet_s: float = Field(1.0, ge=0)
    poll_s: float = Field(0.2, gt=0)
    silence_s: float = Field(120.0, gt=0)
    path_map: dict[str, str] = {}
    recordings: str = ""
    scan: ScanOptions = ScanOptions()
    checks: CheckSettings = CheckSettings()


@dataclass(frozen=True)
class Collected:
    """The complete file of a scan, the options to open it with, and statistics of its frames."""

    path: Path
    options: ScanOptions
    scan_id: str
    statistics: FrameStatistics


def collect(
    event: ScanEvent,
    settings: CollectSettings,
    stop: threading.Event | None = None,
    on_frames: Callable[[int], None] = lambda _: None,
) -> Collected:
    """Wait for the scan's file, open it, and check every frame.

    Parameters
    ----------
    stop
        Ends the wait early, with the fault that the deadline would give.
    on_frames
        Called with the number of frames checked so far, after every few megabytes.

    Raises
    ------
    CollectError
        Its `fault` says what is wrong.
    """
    path = file_of(event, settings)
    wait_until_closed(path, settings, stop or threading.Event())
    where = str(path)
    options = options_of(event, settings)
    try:
        check_name(_name_in(path), event.scan_id, where)
        with open_scan(path, options) as scan:
            check_length(len(scan), event.frames, where)
            check_energy(scan.said, event.energy_ev, where)
            found = survey(scan)
            blocks = _told(blocks_of(scan.counts), on_frames)
            statistics = measure(blocks, settings.checks, found.bad_pixels, found.saturation, found.limits)
            judge(statistics, settings.checks, where)
            return Collected(path, options, event.scan_id or scan.scan_id, statistics)
    except CollectError:
        raise
    except ScanFileError as error:
        raise CollectError(fault_of(error), error.what, where=error.where, remedy=error.remedy) from error


def options_of(event: ScanEvent, settings: CollectSettings) -> ScanOptions:
    """Options for opening the event's scan."""
    if event.energy_ev is None:
        return settings.scan
    radiation = event.radiation or settings.scan.radiation
    return replace(settings.scan, energy_ev=event.energy_ev, radiation=radiation)


def _told(blocks: Iterable[NDArray[np.integer]], on_frames: Callable[[int], None]) -> Iterator[NDArray[np.integer]]:
    frames = 0
    for block in blocks:
        yield block
        frames += len(block)
        on_frames(frames)


def file_of(event: ScanEvent, settings: CollectSettings) -> Path:
    """Path of the event's scan. Raises CollectError where neither the event nor the settings give one."""
    if event.file:
        return Path(local_name(event.file, settings.path_map))
    if settings.recordings:
        return FileNames(settings.recordings).latest(event.scan_id)
    raise CollectError(
        ScanFault.MISSING,
        f"no file is named for scan {event.scan_id!r}",
        where="file-name PV",
        remedy="configure the PV of the file name, or have the stream recorded",
    )


def local_name(name: str, path_map: dict[str, str]) -> str:
    """The local name for a file name on another computer: the longest mapped beginning is replaced.

    Examples
    --------
    >>> local_name(r"D:\\data\\s1.h5", {"D:/data": "/mnt/det"})
    '/mnt/det/s1.h5'
    """
    plain = name.replace("\\", "/") if "\\" in name else name
    for there in sorted(path_map, key=len, reverse=True):
        beginning = there.replace("\\", "/").rstrip("/")
        if plain == beginning or plain.startswith(beginning + "/"):
            return path_map[there].rstrip("/") + plain[len(beginning) :]
    return name


def wait_until_closed(path: Path, settings: CollectSettings, stop: threading.Event) -> None:
    """Wait until the writer of `path` has closed it: with or without locks, SWMR or a temporary name.

    Raises
    ------
    CollectError
        At the deadline the file is missing, still grows, is not closed, or is incomplete.
    """
    start = time.monotonic()
    seen, changed = _state(path), start
    while True:
        now = time.monotonic()
        state = _state(path)
        if state != seen:
            seen, changed = state, now
        error = _why_not_closed(path)
        if error is None and now - changed >= settings.quiet_s:
            return
        if now - start >= settings.timeout_s or stop.wait(settings.poll_s):
            raise _fault(path, error, changed - start > (now - start) / 2, now - start)


def _state(path: Path) -> tuple[int, int] | None:
    """Size and modification time, which change while a file is written; of the partial file while it has that name."""
    for one in (path, partial_of(path)):
        try:
            status = one.stat()
        except OSError:
            continue
        return status.st_size, status.st_mtime_ns
    return None


def _why_not_closed(path: Path) -> ScanFileError | None:
    """None if the file can be read, or has a fault that waiting does not cure."""
    try:
        with path.open("rb") as file:
            start = file.read(len(_HDF5_SIGNATURE))
    except FileNotFoundError:
        if partial_of(path).exists():
            return FileBusyError("it is still being recorded", where=str(path), remedy="wait for its end")
        return FileMissingError("there is no such file", where=str(path), remedy="check the file-name PV and its path")
    except OSError:
        return None  # opening it will give the error
    if not start:
        return FileBusyError("the file is empty", where=str(path), remedy="wait until it is written")
    if start != _HDF5_SIGNATURE:
        return None
    try:
        with open_hdf5(path) as file:
            own = file.get("entry/ptychostream")
            if own is not None and not own.attrs.get(COMPLETE, True):
                return FileCutError(
                    "the recording was cut off", where=str(path), remedy="record the scan again, or use what is there"
                )
    except (FileBusyError, FileCutError) as error:
        return error
    except ScanFileError:
        return None
    return None


def _fault(path: Path, error: ScanFileError | None, grows: bool, waited_s: float) -> CollectError:
    fault = ScanFault.GROWING if error is None else fault_of(error)
    if grows and fault is not ScanFault.MISSING:
        fault = ScanFault.GROWING
    what = "it still changes" if error is None else error.what
    remedy = "let the writer close it before the scan-complete PV is written, or give a longer timeout"
    if error is not None and fault is not ScanFault.GROWING:
        remedy = error.remedy
    return CollectError(fault, f"not whole after {waited_s:.1f} s: {what}", where=str(path), remedy=remedy)


def _name_in(path: Path) -> str:
    """The scan's id in the file; empty: none."""
    with path.open("rb") as file:
        if file.read(len(_HDF5_SIGNATURE)) != _HDF5_SIGNATURE:
            return ""
    with open_hdf5(path) as file:
        return text(file.get("entry/entry_identifier"))
