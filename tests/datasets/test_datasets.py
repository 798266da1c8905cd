"""Data sets: fetched, checked, converted and cached; nothing in them can run code."""

from __future__ import annotations

import bz2
import hashlib
import io
import json
import pickle
import sys
import tarfile
import threading
import venv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ptychostream.cli.main import main
from ptychostream.datasets import dataset as description
from ptychostream.datasets import fetching as datasets
from ptychostream.datasets.dataset import Dataset
from ptychostream.datasets.pip_archive import PipArchive
from ptychostream.datasets.safe_pickle import load_arrays
from ptychostream.errors import DatasetError
from ptychostream.scans.scan_files import open_scan

REAL = datasets.DATASETS["26id-247"]
assert isinstance(REAL.origin, PipArchive)
ORIGIN: PipArchive = REAL.origin


def make_archive(folder: Path, content: object, **changes: str) -> tuple[Path, Dataset]:
    """A source distribution of the real one's form, and the entry that describes it."""
    member = bz2.compress(pickle.dumps(content), 1)
    path = folder / "tike.tar.gz"
    with tarfile.open(path, "w:gz") as tar:
        entry = tarfile.TarInfo(ORIGIN.member)
        entry.size = len(member)
        tar.addfile(entry, io.BytesIO(member))
    sums = {
        "archive_sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "checksum": hashlib.sha256(member).hexdigest(),
    }
    return path, replace(REAL, origin=replace(ORIGIN, **{**sums, **changes}))


def content() -> list[np.ndarray]:
    random = np.random.default_rng(0)
    patterns = np.broadcast_to(np.arange(1, 129, dtype=np.uint16), (481, 128, 128)).copy()
    patterns[:, 0, 0] = np.arange(481)
    patterns[:, 3, 5] = 0
    pixels = random.uniform(50, 430, (481, 2)).astype(np.float32)
    return [patterns, pixels + 2, pixels, np.ones((1, 1, 3, 128, 128), complex)]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Dataset]:
    return make_archive(tmp_path_factory.mktemp("archive"), content())


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """pip finds nothing, as on a machine without network."""
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")


# The real scan


@pytest.mark.slow
def test_the_real_scan_is_what_was_published() -> None:
    path = datasets.fetch("26id-247", progress=False)
    with open_scan(path) as scan:
        assert scan.counts.shape == (481, 128, 128)
        assert scan.counts.dtype == np.uint16
        counts = np.asarray(scan.counts)
        assert counts.max() == 32541
        assert scan.bad_pixels is not None
        assert scan.bad_pixels.sum() == 9
        assert not counts[:, scan.bad_pixels].any()
        # The cone of a zone plate with a central stop lies around the zero frequency, at the centre.
        mean = counts.mean(axis=0)
        rows, columns = np.indices(mean.shape)
        assert (mean * rows).sum() / mean.sum() == pytest.approx(64, abs=4)
        assert (mean * columns).sum() / mean.sum() == pytest.approx(64, abs=4)
        radius = np.hypot(rows - 64, columns - 64)
        assert mean[radius < 25].mean() < 0.1 * mean[(radius > 38) & (radius < 58)].mean()
        np.testing.assert_allclose(np.ptp(scan.positions_m, axis=0), [6.02e-6, 6.09e-6], rtol=0.01)
        nominal = scan.metadata["positions_nominal_m"]
        off_px = np.sqrt(np.mean((scan.positions_m - nominal) ** 2) * 2) / 15.85e-9
        assert off_px == pytest.approx(9.8, abs=0.5)
        assert scan.probe is not None
        assert scan.probe.shape == (1, 128, 128)
        assert "UChicago Argonne" in scan.metadata["licence"]
    assert datasets.is_cached("26id-247")


# Fetching, on a made-up archive of the same form


@pytest.mark.slow
def test_fetch_from_an_archive_converts_and_caches(
    made: tuple[Path, Dataset], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, offline: None
) -> None:
    archive, dataset = made
    monkeypatch.setitem(datasets.DATASETS, "26id-247", dataset)
    assert not datasets.is_cached("26id-247", tmp_path / "cache")
    path = datasets.fetch("26id-247", tmp_path / "cache", archive=archive, progress=False)
    patterns, nominal, true, _ = content()
    with open_scan(path) as scan:
        np.testing.assert_array_equal(scan.counts[7], np.fft.fftshift(patterns[7]))
        assert scan.bad_pixels is not None
        assert np.argwhere(scan.bad_pixels).tolist() == [[67, 69]]
        pixel_m = 15.85e-9
        steps = np.diff(true[:, ::-1], axis=0) * pixel_m
        np.testing.assert_allclose(np.diff(scan.positions_m, axis=0), steps, rtol=2e-3, atol=1e-12)
        middle = (scan.positions_m.min(axis=0) + scan.positions_m.max(axis=0)) / 2
        np.testing.assert_allclose(middle, 0, atol=1e-15)
        off = scan.metadata["positions_nominal_m"] - scan.positions_m
        np.testing.assert_allclose(off, (nominal - true)[:, ::-1] * pixel_m, rtol=2e-3)
    written = path.stat().st_mtime_ns
    assert datasets.fetch("26id-247", tmp_path / "cache", progress=False) == path  # no archive, no network: cached
    assert path.stat().st_mtime_ns == written
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


@pytest.mark.slow
def test_a_damaged_or_older_cache_is_made_again(
    made: tuple[Path, Dataset], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    archive, dataset = made
    monkeypatch.setitem(datasets.DATASETS, "26id-247", dataset)
    path = datasets.fetch("26id-247", tmp_path, archive=archive, progress=False)
    path.write_bytes(path.read_bytes()[:5000])
    assert not datasets.is_cached("26id-247", tmp_path)
    datasets.fetch("26id-247", tmp_path, archive=archive, progress=False)
    assert datasets.is_cached("26id-247", tmp_path)
    monkeypatch.setattr(description, "FORMAT", description.FORMAT + 1)
    assert not datasets.is_cached("26id-247", tmp_path)


@pytest.mark.slow
def test_several_fetches_at_once(made: tuple[Path, Dataset], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    archive, dataset = made
    monkeypatch.setitem(datasets.DATASETS, "26id-247", dataset)
    paths: list[Path] = []
    workers = [
        threading.Thread(
            target=lambda: paths.append(datasets.fetch("26id-247", tmp_path, archive=archive, progress=False))
        )
        for _ in range(2)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert paths == [tmp_path / "26id-247.h5"] * 2
    assert list(tmp_path.iterdir()) == [paths[0]]
    assert datasets.is_cached("26id-247", tmp_path)


@pytest.mark.slow
def test_offline_is_told_with_the_way_out(tmp_path: Path, offline: None, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(DatasetError, match=r"pip could not fetch tike==0\.26\.0: ERROR") as caught:
        datasets.fetch("26id-247", tmp_path / "cache", progress=False)
    assert "--from" in caught.value.remedy
    assert main(["datasets", "fetch", "26id-247", "--cache", str(tmp_path / "cache")]) == 2
    assert "--from" in capsys.readouterr().err
    assert not (tmp_path / "cache").exists()


def test_python_without_pip_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    venv.create(tmp_path / "bare", with_pip=False, symlinks=True)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "bare" / "bin" / "python"))
    with pytest.raises(DatasetError, match="No module named pip"):
        datasets.fetch("26id-247", tmp_path / "cache", progress=False)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"archive_sha256": "0" * 64}, "sha256 is .*, not 0000"),
        ({"checksum": "0" * 64}, r"pickle\.bz2: sha256 is .*, not 0000"),
        ({"member": "tike-0.26.0/other"}, "no member tike-0.26.0/other"),
    ],
)
def test_another_archive_is_refused(
    made: tuple[Path, Dataset],
    changes: dict[str, str],
    match: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    archive, dataset = made
    monkeypatch.setitem(datasets.DATASETS, "26id-247", replace(dataset, origin=replace(dataset.origin, **changes)))
    with pytest.raises(DatasetError, match=match):
        datasets.fetch("26id-247", tmp_path / "cache", archive=archive, progress=False)
    assert not (tmp_path / "cache").exists()


def test_archives_that_are_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DatasetError, match="No such file"):
        datasets.fetch("26id-247", tmp_path, archive=tmp_path / "missing.tar.gz", progress=False)
    (tmp_path / "text").write_text("no archive")
    digest = hashlib.sha256(b"no archive").hexdigest()
    monkeypatch.setitem(datasets.DATASETS, "26id-247", replace(REAL, origin=replace(ORIGIN, archive_sha256=digest)))
    with pytest.raises(DatasetError, match="text"):
        datasets.fetch("26id-247", tmp_path, archive=tmp_path / "text", progress=False)
    with pytest.raises(DatasetError, match=r"no dataset 'nothing'.*26id-247"):
        datasets.fetch("nothing")


@pytest.mark.parametrize("wrong", [[np.zeros(3)] * 4, [1, 2], {"data": 1}])
def test_other_contents_are_refused(wrong: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive, dataset = make_archive(tmp_path, wrong)
    monkeypatch.setitem(datasets.DATASETS, "26id-247", dataset)
    with pytest.raises(DatasetError, match="arrays"):
        datasets.fetch("26id-247", tmp_path, archive=archive, progress=False)


# Safe unpickling


class Attack:
    """What a hostile pickle does: it names a function to be called."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[object, ...]:
        return (Path.touch, (self.target,))


def test_a_hostile_pickle_runs_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    victim = tmp_path / "touched"
    data = pickle.dumps(Attack(victim))
    with pytest.raises(pickle.UnpicklingError, match="not allowed"):
        load_arrays(data)
    archive, dataset = make_archive(tmp_path, Attack(victim))
    monkeypatch.setitem(datasets.DATASETS, "26id-247", dataset)
    with pytest.raises(DatasetError, match="not allowed"):
        datasets.fetch("26id-247", tmp_path, archive=archive, progress=False)
    assert not victim.exists()


@pytest.mark.parametrize("module", [b"numpy.core.multiarray", b"numpy._core.multiarray"])
def test_arrays_of_either_numpy_are_read(module: bytes) -> None:
    arrays = {"a": np.arange(6, dtype=np.uint16).reshape(2, 3), "b": [np.array([1 + 2j])], "c": "text"}
    mine = np.zeros(1).__reduce__()[0].__module__.encode()
    old, new = (b"\x8c" + bytes([len(name)]) + name for name in (mine, module))
    data = pickle.dumps(arrays, protocol=4)
    assert data[2:3] == pickle.FRAME
    assert old in data
    read = load_arrays(data[:2] + data[11:].replace(old, new))  # without the frame, which has a length
    np.testing.assert_array_equal(read["a"], arrays["a"])
    assert read["a"].dtype == np.uint16
    np.testing.assert_array_equal(read["b"][0], arrays["b"][0])
    assert read["c"] == "text"


# The command


@pytest.mark.slow
def test_the_command_lists_and_fetches(
    made: tuple[Path, Dataset],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    archive, dataset = made
    monkeypatch.setitem(datasets.DATASETS, "26id-247", dataset)
    cache = ["--cache", str(tmp_path)]
    assert main(["datasets", "list", "--json", *cache]) == 0
    row, other = json.loads(capsys.readouterr().out)
    assert other["name"] == "ptycho-jl"
    assert (row["name"], row["cached"]) == ("26id-247", False)
    assert main(["datasets", "fetch", "26id-247", "--from", str(archive), *cache]) == 0
    assert capsys.readouterr().out.strip() == row["path"]
    assert main(["datasets", "list", *cache]) == 0
    shown = capsys.readouterr().out
    assert "BSD-3-Clause" in shown
    assert "Argonne" in shown
