"""A scan file that grows while its frames arrive: chunks compressed beforehand, positions perhaps later."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import h5py
import numpy as np

from ptychostream.errors import ScanFileError
from ptychostream.scans.file_names import PARTIAL, partial_of
from ptychostream.scans.scan_hdf5 import open_hdf5
from ptychostream.scans.scan_layout import (
    POSITION_NAMES,
    create_columns,
    create_frames,
    extend,
    own_group,
    stamps,
    write_geometry,
    write_layout,
)
from ptychostream.storage.atomic import publish
from ptychostream.storage.hdf5_commit import CommittedFile, replay_journal

COMPLETE = "complete"
"""Attribute of `/entry/ptychostream`: whether the recording came to its end."""

T = TypeVar("T")


class RecordedFrame(NamedTuple):
    """One frame of a recording: its HDF5 chunk, frame id, POSIX time (s), and the further columns' values."""

    chunk: bytes
    id: int
    time_s: float
    values: Sequence[float] = ()


class ScanRecording:
    """One scan on its way to the disk, in `ptychostream.scans.scan_layout`.

    It grows under `<path>.partial`, and at every `commit` that is a file that `open_scan` reads, whatever happens to
    this process. `finish` gives it its name; `abandon` leaves the last commit under the partial one.

    Parameters
    ----------
    path
        The file to appear. Nothing is replaced: neither it nor its partial file may exist.
    shape, dtype
        (H, W) and integer type of a frame.
    codec
        Of the chunks, as in `ptychostream.scans.scan_layout`.
    columns
        Further NDAttributes, float64.

    Raises
    ------
    ScanFileError
        From every method, naming the file: it exists, full disk, no permission. A recording that failed to write is
        closed by that, with what was committed.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        shape: tuple[int, int],
        dtype: np.dtype[Any],
        *,
        codec: str = "bslz4",
        scan_id: str = "",
        radiation: str = "photon",
        columns: tuple[str, ...] = (),
    ) -> None:
        self.path = Path(path)
        self.partial = partial_of(self.path)
        self.shape, self.dtype, self.codec, self.scan_id = shape, dtype, codec, scan_id
        self.frames = 0
        """Frames given so far."""
        self.committed = 0
        """Frames that a reader would find now."""
        self.bytes = 0
        """Bytes of their chunks."""
        self._columns = columns
        self._rows: list[tuple[float, ...]] = []  # since the last commit: id, time, x, y, further columns
        self._places: dict[int, tuple[float, float]] = {}  # of any row
        self._disk: CommittedFile | None = None
        self._file: h5py.File | None = None
        check_free(self.path)
        self._try(lambda: self._create(radiation))

    def append(self, frames: Sequence[RecordedFrame], places: Sequence[tuple[float, float]]) -> None:
        """Add frames and their positions (x, y) in metres, NaN where not known yet."""
        self._try(lambda: self._append(frames, places))

    def place(self, row: int, x_m: float, y_m: float) -> None:
        """The position of a frame, by its row, that came after it."""
        self._places[row] = (x_m, y_m)

    def set_geometry(
        self,
        energy_ev: float | None = None,
        distance_m: float | None = None,
        detector_pixel_m: float | None = None,
    ) -> None:
        """Once, when it is known."""
        self._try(lambda: write_geometry(self._open(), energy_ev, distance_m, detector_pixel_m))

    def commit(self) -> None:
        """From now on a reader finds all that was given so far."""
        self._try(self._commit)

    def close(self, metadata: Mapping[str, Any]) -> None:
        """Write what belongs to the end, under the partial name still; then `publish` may take its time."""
        self._try(lambda: self._close(metadata))

    def publish(self) -> Path:
        """Bring the closed file to the disk and give it its name."""
        try:
            publish(self.partial, self.path)
        except OSError as error:
            raise self._failed(error) from error
        return self.path

    def finish(self, metadata: Mapping[str, Any] | None = None) -> Path:
        """`close` and `publish`."""
        self.close(metadata or {})
        return self.publish()

    def abandon(self) -> None:
        """Stop here: the partial file holds the last commit. Does nothing when it is closed."""
        if self._disk is not None:
            self._release(keep=False)

    def _open(self) -> h5py.File:
        if self._file is None:
            raise self._error("the recording is closed", "open another")
        return self._file

    def _create(self, radiation: str) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._disk = CommittedFile(self.partial)
        self._file = file = h5py.File(self._disk, "w")
        write_layout(file, self.scan_id, radiation)
        own_group(file).attrs[COMPLETE] = False
        self._data = create_frames(file, self.shape, self.dtype, self.codec)
        self._attributes = create_columns(file, self._columns)
        self._commit()

    def _append(self, frames: Sequence[RecordedFrame], places: Sequence[tuple[float, float]]) -> None:
        self._open()
        first = self.frames
        self._data.resize(first + len(frames), axis=0)
        write = self._data.id.write_direct_chunk
        for row, frame in enumerate(frames, start=first):
            write((row, 0, 0), frame.chunk)
            self.bytes += len(frame.chunk)
        for frame, place in zip(frames, places, strict=True):
            self._rows.append((frame.id, frame.time_s, *place, *frame.values))
        if self._disk is not None:
            self._disk.check()
        self.frames += len(frames)

    def _write_columns(self) -> None:
        """The columns of the frames since the last commit."""
        if not self._rows:
            return
        ids, times, *values = zip(*self._rows, strict=True)
        columns = stamps(np.array(ids, np.int64), np.array(times, np.float64))
        columns |= zip(POSITION_NAMES + self._columns, map(np.asarray, values), strict=True)
        for name, column in columns.items():
            extend(self._attributes[name], column)
        self._rows.clear()

    def _write_places(self) -> None:
        """The positions that came late, in one piece per axis."""
        if not self._places:
            return
        first, last = min(self._places), max(self._places) + 1
        rows = np.fromiter(self._places, np.int64) - first
        for axis, name in enumerate(POSITION_NAMES):
            values = self._attributes[name][first:last]
            values[rows] = [place[axis] for place in self._places.values()]
            self._attributes[name][first:last] = values
        self._places.clear()

    def _commit(self) -> None:
        file = self._open()
        self._write_columns()
        self._write_places()
        file.flush()
        if self._disk is not None:
            self._disk.commit()
        self.committed = self.frames

    def _close(self, metadata: Mapping[str, Any]) -> None:
        file = self._open()
        self._write_columns()
        self._write_places()
        own = own_group(file)
        own.create_dataset("metadata", data=json.dumps(dict(metadata)))
        own.attrs[COMPLETE] = True
        self._release(keep=True)
        self.committed = self.frames

    def _release(self, *, keep: bool) -> None:
        """Close; with `keep` what HDF5 writes in closing is committed."""
        file, disk = self._file, self._disk
        self._file = self._disk = None
        if disk is None:
            return
        try:
            if not keep:
                disk.abandon()
            if file is not None:
                file.close()
            if keep:
                disk.commit()
        except OSError:
            disk.abandon()
            raise
        finally:
            disk.close()

    def _try(self, action: Callable[[], T]) -> T:
        try:
            return action()
        except (OSError, RuntimeError) as failure:
            cause = (self._disk and self._disk.error) or failure
            self.abandon()
            raise self._failed(cause) from failure

    def _failed(self, cause: Exception) -> ScanFileError:
        text = os.strerror(cause.errno) if isinstance(cause, OSError) and cause.errno else str(cause)
        return self._error(
            f"cannot be written after {self.committed} frames: {text}",
            f"check the folder's permissions and the disk's free space; {self.partial.name} holds those frames",
        )

    def _error(self, what: str, remedy: str) -> ScanFileError:
        return ScanFileError(what, where=str(self.path), remedy=remedy)


def check_free(path: Path) -> None:
    """Raise ScanFileError where a recording to `path` would write over something."""
    for taken in (path, partial_of(path)):
        if taken.exists():
            remedy = "name another file" if taken == path else "save it with `ptychostream record --recover`"
            raise ScanFileError(f"{taken.name} is there already", where=str(path), remedy=remedy)


def recover(partial: str | os.PathLike[str]) -> tuple[Path, int]:
    """Give a recording that was cut off its name: the file, and the frames in it.

    Raises
    ------
    ScanFileError
        It is no recording's partial file, it is still being written, cannot be read, or the name is taken.
    """
    partial = Path(partial)
    if partial.suffix != PARTIAL or not partial.is_file():
        raise ScanFileError(
            "not a partial recording", where=str(partial), remedy=f"name an existing file that ends in {PARTIAL}"
        )
    final = partial.with_suffix("")
    if final.exists():
        raise ScanFileError(f"{final.name} is there already", where=str(partial), remedy="move that file away")
    try:
        replay_journal(partial)
        with open_hdf5(partial) as file:
            frames = _consistent(file, partial)
        publish(partial, final)
    except BlockingIOError as error:
        raise ScanFileError("it is still being written", where=str(partial), remedy="stop that recording") from error
    except OSError as error:
        raise ScanFileError(
            f"cannot be recovered: {error.strerror or error}", where=str(partial), remedy="check the permissions"
        ) from error
    return final, frames


def _consistent(file: h5py.File, path: Path) -> int:
    attributes = file.get("entry/instrument/NDAttributes", {})
    data = file.get("entry/data/data")
    lengths = {name: len(column) for name, column in attributes.items()}
    if data is None or not lengths or set(lengths.values()) != {len(data)}:
        raise ScanFileError("not a recording", where=str(path), remedy="open it with h5py and look into it")
    return len(data)
