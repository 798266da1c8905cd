"""Record a scan file while its frames arrive. Chunks are already compressed; positions may come later."""

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
    write_statements,
)
from ptychostream.statements.description import Description
from ptychostream.storage.atomic import publish
from ptychostream.storage.hdf5_commit import CommittedFile, replay_journal

COMPLETE = "complete"
"""Attribute of `/entry/ptychostream`: whether the recording was finished."""

T = TypeVar("T")


class RecordedFrame(NamedTuple):
    """One frame of a recording: its HDF5 chunk, frame id, POSIX time (s), and the values of the further columns."""

    chunk: bytes
    id: int
    time_s: float
    values: Sequence[float] = ()


class ScanRecording:
    """Writes one scan in the layout of `ptychostream.scans.scan_layout`.

    It writes to `<path>.partial`. After every `commit` this is a file that `open_scan` can read, even if this process
    dies. `finish` renames it to `path`. `abandon` keeps the partial file with the last commit.

    Parameters
    ----------
    path
        The file to write. It and its partial file must not exist.
    shape, dtype
        (H, W) and integer type of a frame.
    codec
        Codec of the chunks (see `ptychostream.scans.scan_layout`).
    columns
        Further NDAttributes, float64.

    Raises
    ------
    ScanFileError
        Every method can raise it, with the name of the file: the file exists, the disk is full, or there is no
        permission. A recording that failed to write is closed; its last commit stays.
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
        """The number of frames so far."""
        self.committed = 0
        """The number of committed frames, which a reader finds."""
        self.bytes = 0
        """The number of bytes in their chunks."""
        self._columns = columns
        self._rows: list[tuple[float, ...]] = []  # rows since the last commit: id, time, x, y, further columns
        self._places: dict[int, tuple[float, float]] = {}  # positions by row
        self._disk: CommittedFile | None = None
        self._file: h5py.File | None = None
        check_free(self.path)
        self._try(lambda: self._create(radiation))

    def append(self, frames: Sequence[RecordedFrame], places: Sequence[tuple[float, float]]) -> None:
        """Add frames and their positions (x, y) in metres, NaN where not known yet."""
        self._try(lambda: self._append(frames, places))

    def place(self, row: int, x_m: float, y_m: float) -> None:
        """Set the position of the frame in `row`, which arrived after the frame."""
        self._places[row] = (x_m, y_m)

    def set_geometry(
        self,
        energy_ev: float | None = None,
        distance_m: float | None = None,
        detector_pixel_m: float | None = None,
    ) -> None:
        """Write the geometry. Called once, when it is known."""
        self._try(lambda: write_geometry(self._open(), energy_ev, distance_m, detector_pixel_m))

    def state(self, said: Description) -> None:
        """Write what the stream says of its frames. Called at most once."""
        self._try(lambda: write_statements(self._open(), said))

    def commit(self) -> None:
        """Commit all frames and positions so far, so that a reader finds them."""
        self._try(self._commit)

    def close(self, metadata: Mapping[str, Any]) -> None:
        """Write the end of the file, and close the partial file. `publish`, which may be slow, comes after it."""
        self._try(lambda: self._close(metadata))

    def publish(self) -> Path:
        """Write the closed file to the disk and rename it. Returns its path."""
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
        """Stop, and keep the partial file with the last commit. Does nothing if the recording is closed."""
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
        """Write the columns of the frames since the last commit."""
        if not self._rows:
            return
        ids, times, *values = zip(*self._rows, strict=True)
        columns = stamps(np.array(ids, np.int64), np.array(times, np.float64))
        columns |= zip(POSITION_NAMES + self._columns, map(np.asarray, values), strict=True)
        for name, column in columns.items():
            extend(self._attributes[name], column)
        self._rows.clear()

    def _write_places(self) -> None:
        """Write the positions that came late, with one write per axis."""
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
        """Close the file. With `keep` the data that HDF5 writes at closing is committed."""
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
            f"check the folder's permissions and the disk's free space; {self.partial.name} has those frames",
        )

    def _error(self, what: str, remedy: str) -> ScanFileError:
        return ScanFileError(what, where=str(self.path), remedy=remedy)


def check_free(path: Path) -> None:
    """Raise ScanFileError if a recording to `path` would overwrite a file."""
    for taken in (path, partial_of(path)):
        if taken.exists():
            remedy = "name another file" if taken == path else "save it with `ptychostream record --recover`"
            raise ScanFileError(f"{taken.name} exists already", where=str(path), remedy=remedy)


def recover(partial: str | os.PathLike[str]) -> tuple[Path, int]:
    """Rename the partial file of an interrupted recording. Returns the file and the number of its frames.

    Raises
    ------
    ScanFileError
        The file is not a partial recording, is still being written or cannot be read, or the name is taken.
    """
    partial = Path(partial)
    if partial.suffix != PARTIAL or not partial.is_file():
        raise ScanFileError(
            "not a partial recording", where=str(partial), remedy=f"name an existing file that ends in {PARTIAL}"
        )
    final = partial.with_suffix("")
    if final.exists():
        raise ScanFileError(f"{final.name} exists already", where=str(partial), remedy="move that file away")
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
        raise ScanFileError("not a recording", where=str(path), remedy="inspect it with h5py")
    return len(data)
