"""The corpus on disk: one HDF5 file for each labelled scan, which is never changed.

Each file appears complete or not at all, also when the process is killed, and a damaged file costs one scan. Datasets
are contiguous, so that training reads rows anywhere without HDF5's lock and with memory for one batch only: the
108,819 pairs of Babu et al. 2023 take 10.7 GB on disk.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from ptychostream.errors import ScanFileError, TrainingError
from ptychostream.hpc_agent.corpus.shards import KIND, Shard, ShardIndex, read_shard, shard_files
from ptychostream.hpc_agent.corpus.stored_array import Extent, StoredArray
from ptychostream.hpc_agent.corpus.training_data import Corpus
from ptychostream.model.contract import Preprocessing
from ptychostream.scans.phase_file import file_stem
from ptychostream.storage.atomic import atomic_path, cannot_be_written
from ptychostream.storage.hdf5_output import hdf5_output

_log = logging.getLogger(__name__)

_LABEL_TYPE = np.dtype(np.float16)  # a step of 0.001 rad at π; the labels' own noise is tens of times that


class CorpusStore:
    """A folder of labelled scans.

    Parameters
    ----------
    folder
        The folder; made when the first scan is appended.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._index = ShardIndex(folder)

    def append(
        self, key: str, corpus: Corpus, *, validation: float = 0.1, provenance: Mapping[str, Any] | None = None
    ) -> int:
        """Add the pairs of one scan. A scan that was added before is not changed.

        Parameters
        ----------
        key
            The scan's name.
        corpus
            Its pairs, of one source.
        validation
            Fraction of the measured pairs that is never trained on and chooses the best epoch. The key seeds the draw.

        Returns
        -------
        int
            Number of pairs in the file.

        Raises
        ------
        ScanFileError
            It cannot be written; nothing is left behind.
        """
        path = self._path(key)
        if path.exists():
            return read_shard(path).pairs
        numbers = [shard.number for shard in self.shards()]
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with atomic_path(path) as temporary, hdf5_output(temporary) as file:
                _write(file, key, max(numbers, default=0) + 1, corpus, _set_aside(key, corpus, validation), provenance)
        except OSError as error:
            raise cannot_be_written(path, error) from error
        return len(corpus)

    def validation(self, key: str) -> NDArray[np.bool_]:
        """[measured] True at a scan's pairs that were set aside.

        Raises
        ------
        ScanFileError
            The scan is not in the corpus, or its file is damaged.
        """
        shard = read_shard(self._path(key))
        with h5py.File(shard.path, "r") as file:
            aside: NDArray[np.bool_] = file["validation"][: shard.measured].astype(np.bool_)
        return aside

    def shards(self) -> list[Shard]:
        """Every readable file, in order of arrival; a file is opened only where the index does not know it.

        `damaged` lists the others.
        """
        return sorted(self._index.shards(), key=lambda shard: shard.number)

    def damaged(self) -> list[tuple[Path, str]]:
        """Files that cannot be read, and why. Every file is opened."""
        found = []
        for path in shard_files(self.folder):
            try:
                read_shard(path)
            except ScanFileError as error:
                found.append((path, str(error)))
        return found

    def keep(self, pairs: int, key: str = "") -> list[str]:
        """Remove the oldest scans, so that the others have at most so many pairs; the newest and `key` stay.

        Returns
        -------
        list of str
            The keys of the scans that were removed.

        Raises
        ------
        ScanFileError
            A file cannot be removed.
        """
        shards = self.shards()
        total, removed = 0, []
        for shard in reversed(shards):
            total += shard.pairs
            if total > pairs and shard is not shards[-1] and shard.key != key:
                try:
                    shard.path.unlink(missing_ok=True)
                except OSError as error:
                    remedy = "check the folder's permissions"
                    what = f"cannot be removed: {error.strerror or error}"
                    raise ScanFileError(what, where=str(shard.path), remedy=remedy) from error
                removed.append(shard.key)
        return removed

    def __len__(self) -> int:
        """Number of pairs in all files."""
        return sum(shard.pairs for shard in self.shards())

    @contextmanager
    def opened(self, newest: int | None = None) -> Iterator[tuple[Corpus, NDArray[np.bool_], list[str]]]:
        """The corpus for training. Its arrays are read when they are indexed.

        Parameters
        ----------
        newest
            Only this many of the newest scans; None: all.

        Yields
        ------
        corpus
            Pairs with the newest scan's geometry, measured ones first.
        validation
            [N] True at the pairs that were set aside.
        passed_over
            Keys of scans with other shapes or another object pixel.

        Raises
        ------
        TrainingError
            There is no labelled scan.
        """
        shards = self.shards()
        if not shards:
            remedy = "label a scan first"
            raise TrainingError("no labelled scan", where=str(self.folder), remedy=remedy)
        last = shards[-1]
        alike = [shard for shard in shards if _alike(shard, last)]
        passed_over = [shard.key for shard in shards if not _alike(shard, last)]
        chosen = [shard for shard in (alike if newest is None else alike[-newest:]) if _sound(shard)]
        if not chosen:
            remedy = "label a scan again"
            raise TrainingError("every labelled scan is damaged", where=str(self.folder), remedy=remedy)
        opened: list[StoredArray] = []
        try:
            corpus, validation = _open(chosen, opened)
            yield corpus, validation, passed_over
        finally:
            for array in opened:
                array.close()

    def _path(self, key: str) -> Path:
        return self.folder / f"{file_stem(key)}.h5"


def _sound(shard: Shard) -> bool:
    """Whether the file can be read; the index does not see damage that leaves size and time unchanged."""
    try:
        read_shard(shard.path)
    except ScanFileError as error:
        _log.warning("not trained on: %s", error)
        return False
    return True


def _alike(a: Shard, b: Shard) -> bool:
    shapes = (a.input_shape, a.output_shape) == (b.input_shape, b.output_shape)
    return shapes and bool(np.isclose(a.pixel_m, b.pixel_m, rtol=1e-3, atol=0))


def _set_aside(key: str, corpus: Corpus, part: float) -> NDArray[np.bool_]:
    random = np.random.default_rng(list(key.encode()))
    aside = np.zeros(len(corpus), np.bool_)
    count = min(max(1, round(part * corpus.measured)), corpus.measured)
    aside[random.choice(corpus.measured, count, replace=False)] = True
    return aside


def _write(
    file: h5py.File,
    key: str,
    number: int,
    corpus: Corpus,
    validation: NDArray[np.bool_],
    provenance: Mapping[str, Any] | None,
) -> None:
    file.attrs["kind"] = KIND
    file.attrs["key"] = key
    file.attrs["number"] = number
    file.attrs["measured"] = corpus.measured
    file.attrs["pixel_m"] = corpus.pixel_m
    file.attrs["preprocessing"] = corpus.preprocessing.model_dump_json()
    file.attrs["scans"] = json.dumps(corpus.scans)
    file.attrs["provenance"] = json.dumps(dict(provenance or {}))
    file.create_dataset("counts", data=corpus.counts)
    file.create_dataset("phase", data=np.asarray(corpus.phase[:], _LABEL_TYPE))
    file.create_dataset("amplitude", data=np.asarray(corpus.amplitude[:], _LABEL_TYPE))
    file.create_dataset("weight", data=corpus.weights[0])
    file.create_dataset("validation", data=validation)


def _open(shards: Sequence[Shard], opened: list[StoredArray]) -> tuple[Corpus, NDArray[np.bool_]]:
    """The corpus of `shards`, measured pairs of all of them first; its arrays are added to `opened`."""
    extents: dict[str, list[Extent]] = {"counts": [], "phase": [], "amplitude": []}
    behind: dict[str, list[Extent]] = {"counts": [], "phase": [], "amplitude": []}
    weights, scans, aside, aside_behind, source, source_behind = [], [], [], [], [], []
    for index, shard in enumerate(shards):
        with h5py.File(shard.path, "r") as file:
            for name in extents:
                measured, simulated = _extents(shard.path, file[name], shard.measured)
                extents[name].append(measured)
                if simulated.rows:
                    behind[name].append(simulated)
            weights.append(file["weight"][()])
            scans += json.loads(file.attrs["scans"])
            validation = file["validation"][()].astype(np.bool_)
            preprocessing = Preprocessing.model_validate_json(file.attrs["preprocessing"])
        aside.append(validation[: shard.measured])
        aside_behind.append(validation[shard.measured :])
        source.append(np.full(shard.measured, index))
        source_behind.append(np.full(shard.pairs - shard.measured, index))
    wide = any(extent.dtype != np.uint16 for extent in extents["counts"] + behind["counts"])
    types = {"counts": np.dtype(np.float32 if wide else np.uint16)}
    arrays: dict[str, StoredArray] = {}
    for name, first in extents.items():
        arrays[name] = StoredArray(first + behind[name], types.get(name, np.dtype(np.float32)))
        opened.append(arrays[name])
    corpus = Corpus(
        counts=arrays["counts"],
        phase=arrays["phase"],
        amplitude=arrays["amplitude"],
        source=np.concatenate(source + source_behind),
        weights=np.stack(weights),
        pixel_m=shards[-1].pixel_m,
        preprocessing=preprocessing,
        scans=tuple(scans),
        measured=sum(shard.measured for shard in shards),
    )
    return corpus, np.concatenate(aside + aside_behind)


def _extents(path: Path, dataset: h5py.Dataset, measured: int) -> tuple[Extent, Extent]:
    """Where a contiguous dataset's measured and simulated rows lie."""
    offset = dataset.id.get_offset()
    if offset is None:
        raise ScanFileError("its data are not contiguous", where=str(path), remedy="label the scan again")
    shape, dtype = dataset.shape[1:], dataset.dtype
    size = int(np.prod(shape)) * dtype.itemsize
    return (
        Extent(path, offset, measured, shape, dtype),
        Extent(path, offset + measured * size, len(dataset) - measured, shape, dtype),
    )
