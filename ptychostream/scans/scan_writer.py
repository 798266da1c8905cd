"""Write scan files in the layout of areaDetector's NDFileHDF5, frame by frame."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

import h5py
import numpy as np
from numpy.typing import DTypeLike, NDArray

from ptychostream.errors import ScanFileError
from ptychostream.scans.scan import Scan
from ptychostream.scans.scan_layout import (
    CODECS,
    POSITION_NAMES,
    create_columns,
    create_frames,
    extend,
    own_group,
    stamps,
    write_geometry,
    write_layout,
    write_statements,
)
from ptychostream.statements.description import Description
from ptychostream.storage.atomic import publish
from ptychostream.storage.hdf5_output import GuardedFile

_BLOCK_BYTES = 4 << 20

T = TypeVar("T")


class ScanWriter:
    """Writes one scan to HDF5 like areaDetector.

    It writes to `<path>.partial`. `close` writes the file to the disk and renames it. As a context manager it closes at
    the end of the block, and removes the file if the block raises. To keep an interrupted scan, call `close` in the
    block.

    The layout is that of `scan_layout`. `/entry/ptychostream/` has the `probe` and the `metadata` (JSON).

    Parameters
    ----------
    path
        The file to write. An existing file is replaced.
    shape, dtype
        (H, W) and integer type of a frame.
    energy_ev, distance_m, detector_pixel_m, radiation, scan_id, bad_pixels, probe, metadata
        See `ptychostream.scans.scan.Scan`.
    said
        What the source says of its frames; region, binning, bit depth and saturation are kept.
    codec
        "bslz4", "lz4", "blosc" or "none".
    extra
        Other arrays to store in `/entry/ptychostream`, by name.

    Raises
    ------
    ScanFileError
        Every method can raise it, with the name of the file: the disk is full, there is no permission, or a frame has
        another shape or type.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        shape: tuple[int, int],
        dtype: DTypeLike,
        *,
        energy_ev: float,
        distance_m: float,
        detector_pixel_m: float,
        radiation: str = "photon",
        scan_id: str = "",
        bad_pixels: NDArray[np.bool_] | None = None,
        probe: NDArray[np.complex64] | None = None,
        metadata: Mapping[str, Any] | None = None,
        extra: Mapping[str, NDArray[Any]] | None = None,
        codec: str = "bslz4",
        said: Description | None = None,
    ) -> None:
        self.path = Path(path)
        self.partial = self.path.with_name(self.path.name + ".partial")
        self.frames = 0
        self._dtype = np.dtype(dtype)
        self._shape = (int(shape[0]), int(shape[1]))
        if self._dtype.kind not in "iu":
            raise self._error(f"counts of type {self._dtype}", "give integer counts")
        if codec not in CODECS:
            raise self._error(f"unknown codec {codec!r}", f"choose one of {', '.join(CODECS)}")
        self._block = max(1, min(256, _BLOCK_BYTES // (self._dtype.itemsize * self._shape[0] * self._shape[1])))
        self._counts: list[NDArray[Any]] = []
        self._values: list[tuple[int, float, float, float]] = []
        scan = Scan(
            scan_id, None, np.empty((0, 2)), energy_ev, distance_m, detector_pixel_m, radiation, bad_pixels, probe
        )
        scan.said = said or scan.said
        self._disk: GuardedFile | None = None
        self._file: h5py.File | None = None
        self._try(lambda: self._create(scan, metadata or {}, extra or {}, codec))

    def append(self, counts: NDArray[np.integer], frame_id: int, time_s: float, x_m: float, y_m: float) -> None:
        """Add one frame: [H, W] counts, its id, POSIX time (s) and position (m, canvas axes)."""
        if self._file is None:
            raise self._error("the file is closed", "open another ScanWriter")
        if counts.shape != self._shape or counts.dtype != self._dtype:
            raise self._error(
                f"frame {frame_id} is {counts.dtype} {counts.shape}, the file has {self._dtype} {self._shape}",
                "write frames of different shapes or types to different files",
            )
        self._counts.append(counts.copy())
        self._values.append((frame_id, time_s, x_m, y_m))
        self.frames += 1
        if len(self._values) >= self._block:
            self.flush()

    def flush(self) -> None:
        """Write the appended frames to the file."""
        self._try(self._flush)

    def close(self) -> None:
        """Finish the file and rename it. It may be called twice."""
        if self._file is None:
            return
        self._try(self._finish)

    def abort(self) -> None:
        """Stop and remove the file."""
        if self._disk is not None:
            self._release()
            self.partial.unlink(missing_ok=True)

    def __enter__(self) -> ScanWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:
            self.abort()

    def _create(self, scan: Scan, metadata: Mapping[str, Any], extra: Mapping[str, NDArray[Any]], codec: str) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._disk = GuardedFile(self.partial)
        self._file = file = h5py.File(self._disk, "w")
        write_layout(file, scan.scan_id, scan.radiation)
        binned = any((scan.said.number(f"binning_{axis}") or 1) > 1 for axis in "xy")
        write_geometry(file, scan.energy_ev, scan.distance_m, scan.detector_pixel_m, binned=binned)
        if scan.bad_pixels is not None:
            file["entry/instrument/detector"].create_dataset("pixel_mask", data=scan.bad_pixels.astype(np.uint32))
        own = own_group(file)
        own.create_dataset("metadata", data=json.dumps(dict(metadata)))
        if scan.probe is not None:
            own.create_dataset("probe", data=scan.probe.astype(np.complex64))
        for name, array in extra.items():
            own.create_dataset(name, data=array)
        create_frames(file, self._shape, self._dtype, codec)
        create_columns(file)
        write_statements(file, scan.said)
        self._check()

    def _flush(self) -> None:
        if self._file is None or not self._values:
            return
        ids, times, x, y = (np.array(column) for column in zip(*self._values, strict=True))
        columns = {**stamps(ids, times), POSITION_NAMES[0]: x, POSITION_NAMES[1]: y}
        instrument = self._file["entry/instrument"]
        extend(instrument["detector/data"], np.stack(self._counts))
        for name, values in columns.items():
            extend(instrument["NDAttributes"][name], values)
        self._file.flush()
        self._check()
        self._counts.clear()
        self._values.clear()

    def _finish(self) -> None:
        self._flush()
        disk = self._disk
        self._release()
        try:
            if disk is not None:
                disk.check()
            publish(self.partial, self.path)
        except OSError:
            self.partial.unlink(missing_ok=True)
            raise

    def _release(self) -> None:
        file, disk = self._file, self._disk
        self._file = self._disk = None
        if file is not None:
            file.close()
        if disk is not None:
            disk.close()

    def _check(self) -> None:
        if self._disk is not None:
            self._disk.check()

    def _try(self, action: Callable[[], T]) -> T:
        """Run `action`. If the disk fails, the partial file is removed and ScanFileError is raised."""
        try:
            return action()
        except (OSError, RuntimeError) as failure:
            error = (self._disk and self._disk.error) or failure
            self.abort()
            cause = os.strerror(error.errno) if isinstance(error, OSError) and error.errno else str(error)
            raise self._error(
                f"cannot be written after {self.frames} frames: {cause}",
                "check the folder's permissions, the disk's free space, and that no other program writes this file",
            ) from error

    def _error(self, what: str, remedy: str) -> ScanFileError:
        return ScanFileError(what, where=str(self.path), remedy=remedy)


def write_scan(
    path: str | os.PathLike[str],
    scan: Scan,
    *,
    codec: str = "bslz4",
    extra: Mapping[str, NDArray[Any]] | None = None,
) -> None:
    """Write a complete `scan` to `path` with `ScanWriter`. Unknown times are written as 0. Raises ScanFileError."""
    first = scan.counts[0]
    ids = scan.frame_ids if scan.frame_ids is not None else np.arange(len(scan), dtype=np.int64)
    times = scan.times if scan.times is not None else np.zeros(len(scan))
    with ScanWriter(
        path,
        first.shape,
        first.dtype,
        energy_ev=scan.energy_ev,
        distance_m=scan.distance_m,
        detector_pixel_m=scan.detector_pixel_m,
        radiation=scan.radiation,
        scan_id=scan.scan_id,
        bad_pixels=scan.bad_pixels,
        probe=scan.probe,
        metadata=scan.metadata,
        extra=extra,
        codec=codec,
        said=scan.said,
    ) as writer:
        for index, (x_m, y_m) in enumerate(scan.positions_m):
            writer.append(scan.counts[index], int(ids[index]), float(times[index]), float(x_m), float(y_m))
