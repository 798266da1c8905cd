"""Data sets from a web address: the files are checked, however they are packed, and only they are taken."""

from __future__ import annotations

import hashlib
import io
import tarfile
import threading
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import h5py
import numpy as np
import pytest

from ptychostream.cli.main import main
from ptychostream.datasets import fetching, ptycho_jl
from ptychostream.datasets.web_archive import WebArchive
from ptychostream.errors import DatasetError
from ptychostream.scans.scan_files import open_scan

SHAPE = (2, 3)
NAME = "ptycho-jl"


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def site(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """A folder, and the address that it is served at."""
    folder = tmp_path / "site"
    folder.mkdir()
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder))) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield folder, f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


def patterns() -> np.ndarray:
    return np.random.default_rng(3).poisson(2.0, (SHAPE[0] * SHAPE[1], 16, 16)).astype(np.uint8)


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """The folder as its authors have it: MATLAB stores columns first."""
    folder = tmp_path / "repository" / "test_data"
    folder.mkdir(parents=True)
    for number, pattern in enumerate(patterns(), 1):
        with h5py.File(folder / f"dp_{number}.mat", "w") as file:
            file.create_dataset("dp", data=pattern.T).attrs["MATLAB_class"] = np.bytes_("uint8")
    (folder / ".DS_Store").write_bytes(b"not a pattern")
    return folder


def sum_of(folder: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted(folder.glob("dp_*.mat")):
        digest.update(f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n".encode())
    return digest.hexdigest()


def pack(folder: Path, target: Path, mode: str = "w:gz") -> None:
    with tarfile.open(target, mode) as tar:
        tar.add(folder, "Ptycho.jl-abc/test_data")
        stray = tarfile.TarInfo("Ptycho.jl-abc/other/dp_7.mat")
        stray.size = 4
        tar.addfile(stray, io.BytesIO(b"else"))
        link = tarfile.TarInfo("Ptycho.jl-abc/test_data/dp_9.mat")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/hostname"
        tar.addfile(link)


@pytest.fixture
def origin(files: Path, site: tuple[Path, str], monkeypatch: pytest.MonkeyPatch) -> WebArchive:
    """The small data set in place of the published one."""
    folder, address = site
    pack(files, folder / "a.tar.gz")
    origin = WebArchive(f"{address}/a.tar.gz", 1, "test_data", r"dp_\d{1,5}\.mat", SHAPE[0] * SHAPE[1], sum_of(files))
    use(origin, monkeypatch)
    monkeypatch.setattr(ptycho_jl, "OPTIONS", replace(ptycho_jl.OPTIONS, scan_shape=SHAPE))
    return origin


def use(origin: WebArchive, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(fetching.DATASETS, NAME, replace(ptycho_jl.PTYCHO_JL, origin=origin))


def test_it_is_fetched_checked_and_turned_as_it_was_measured(
    origin: WebArchive, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["datasets", "fetch", NAME, "--cache", str(tmp_path / "cache")]) == 0
    path = Path(capsys.readouterr().out.strip())
    assert path == tmp_path / "cache" / f"{NAME}.h5"
    with open_scan(path) as scan:
        np.testing.assert_array_equal(scan.counts[:], patterns())
        assert (scan.energy_ev, scan.radiation, scan.scan_id) == (300e3, "electron", NAME)
        assert scan.metadata["licence"].startswith("MIT")
        step = scan.positions_m[1] - scan.positions_m[0]
        angle = np.deg2rad(126)
        np.testing.assert_allclose(step, 31.25e-10 * np.array([np.cos(angle), np.sin(angle)]), rtol=1e-6)
    assert fetching.is_cached(NAME, tmp_path / "cache")
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize("given", ["folder", "gz", "plain"])
def test_what_was_fetched_by_other_means_is_taken(
    given: str, origin: WebArchive, files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(replace(origin, url="http://127.0.0.1:9/none"), monkeypatch)
    archive = files
    if given != "folder":
        archive = tmp_path / f"mine.{given}"
        pack(files, archive, "w:gz" if given == "gz" else "w")
    assert fetching.fetch(NAME, tmp_path / "cache", archive=archive, progress=False).exists()


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"checksum": "0" * 64}, "sha256 of the files is .*, not 0000"),
        ({"files": 7}, "6 files .* of 7"),
        ({"folder": "example"}, "0 files"),
        ({"megabytes": 0}, "larger than 0 MB"),
    ],
)
def test_other_files_are_refused(
    change: dict[str, object], match: str, origin: WebArchive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(replace(origin, **change), monkeypatch)
    with pytest.raises(DatasetError, match=match) as caught:
        fetching.fetch(NAME, tmp_path / "cache", progress=False)
    assert caught.value.remedy
    assert not (tmp_path / "cache").exists()


def test_too_much_in_a_small_archive_is_refused(
    origin: WebArchive, files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (files / "dp_7.mat").write_bytes(bytes(2_000_000))
    pack(files, tmp_path / "large.tgz")
    assert (tmp_path / "large.tgz").stat().st_size < 1_000_000
    with pytest.raises(DatasetError, match="its files are larger than 2 MB"):
        fetching.fetch(NAME, tmp_path / "cache", archive=tmp_path / "large.tgz", progress=False)


def test_no_answer_is_told_with_the_way_out(
    origin: WebArchive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    use(replace(origin, url=origin.url + ".none"), monkeypatch)
    assert main(["datasets", "fetch", NAME, "--cache", str(tmp_path / "cache")]) == 2
    told = capsys.readouterr().err
    assert "404" in told and "--from" in told
    (tmp_path / "text").write_text("no archive")
    with pytest.raises(DatasetError, match="cannot be read"):
        fetching.fetch(NAME, tmp_path / "cache", archive=tmp_path / "text", progress=False)
    with pytest.raises(DatasetError, match="No such file"):
        fetching.fetch(NAME, tmp_path / "cache", archive=tmp_path / "missing", progress=False)
