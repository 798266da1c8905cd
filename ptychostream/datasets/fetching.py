"""The published scans by name; fetch one, check it, convert it, and keep it in a cache."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from ptychostream.datasets.dataset import Dataset
from ptychostream.datasets.ptycho_jl import PTYCHO_JL
from ptychostream.datasets.scan_247 import SCAN_247
from ptychostream.errors import DatasetError, ScanFileError
from ptychostream.scans.scan_files import open_scan
from ptychostream.storage.atomic import temporary_beside

DATASETS: dict[str, Dataset] = {dataset.name: dataset for dataset in (SCAN_247, PTYCHO_JL)}


def default_cache() -> Path:
    """The user's cache folder of this program (XDG base directory specification)."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "ptychostream"


def find(name: str) -> Dataset:
    """The dataset with that name. Raises DatasetError."""
    try:
        return DATASETS[name]
    except KeyError:
        raise DatasetError(
            f"there is no dataset {name!r}", where="datasets", remedy=f"give one of {', '.join(DATASETS)}"
        ) from None


def cached_path(name: str, cache_dir: str | os.PathLike[str] | None = None) -> Path:
    """The path where `fetch` stores the scan file of dataset `name`. Raises DatasetError for an unknown name."""
    return (default_cache() if cache_dir is None else Path(cache_dir)) / f"{find(name).name}.h5"


def is_cached(name: str, cache_dir: str | os.PathLike[str] | None = None) -> bool:
    """Whether the cache has a complete, current scan file of dataset `name`."""
    path = cached_path(name, cache_dir)
    try:
        with open_scan(path) as scan:
            return all(scan.metadata.get(key) == value for key, value in find(name).metadata.items())
    except ScanFileError:
        return False


def fetch(
    name: str,
    cache_dir: str | os.PathLike[str] | None = None,
    *,
    archive: str | os.PathLike[str] | None = None,
    progress: bool = True,
) -> Path:
    """The scan file of dataset `name`. The first call fetches it.

    Parameters
    ----------
    name
        A key of `DATASETS`.
    cache_dir
        Folder of the scan files. None takes `default_cache()`.
    archive
        The archive, or the folder of its files, if it was fetched in another way. For machines without network.
    progress
        Whether to show the progress on stderr.

    Returns
    -------
    A NeXus scan file for `ptychostream.scans.scan_files.open_scan`. Patterns have the zero frequency at the centre.
    Several processes may fetch at the same time.

    Raises
    ------
    DatasetError
        The name is unknown, there is no network or no pip, or the contents are not those that were published.
    ScanFileError
        The cache folder cannot be written.
    """
    dataset = find(name)
    path = cached_path(name, cache_dir)
    if is_cached(name, cache_dir):
        return path
    with _status(progress) as say, tempfile.TemporaryDirectory(prefix="ptychostream-") as folder:
        if archive is None:
            say(f"fetching {dataset.origin.archive}")
            archive = dataset.origin.download(Path(folder))
        say(f"checking {Path(archive).name}")
        source = dataset.origin.unpack(Path(archive), Path(folder))
        say(f"converting {dataset.name}")
        temporary = temporary_beside(path)
        try:
            dataset.make(source, temporary, dataset.metadata)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
    return path


def _status(progress: bool) -> Any:
    """A context manager that returns `say(text)`."""
    if not progress:
        return nullcontext(lambda text: None)  # noqa: ARG005
    from rich.console import Console

    status = Console(stderr=True).status("")

    class Status:
        def __enter__(self) -> Callable[[str], None]:
            status.start()
            return status.update

        def __exit__(self, *_: object) -> None:
            status.stop()

    return Status()
