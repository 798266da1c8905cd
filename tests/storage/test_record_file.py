"""Recordings on the disk: commits, journals, crashes at every write, full disks, codecs."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from ptychostream.errors import ConfigError, FrameError, ScanFileError
from ptychostream.frames.codecs import CODECS, LOSSY, compress
from ptychostream.scans import scan_recording
from ptychostream.scans.file_names import FileNames
from ptychostream.scans.hdf5_chunks import as_chunk, file_codec
from ptychostream.scans.scan_files import ScanOptions, open_scan
from ptychostream.scans.scan_layout import CODECS as FILE_CODECS
from ptychostream.scans.scan_recording import RecordedFrame, ScanRecording, recover
from ptychostream.storage import hdf5_commit
from ptychostream.storage.hdf5_commit import CommittedFile, journal_of

SHAPE = (12, 20)
GEOMETRY = ScanOptions(energy_ev=1e4, distance_m=1.0, detector_pixel_m=1e-4)
RANDOM = np.random.default_rng(3)


def counts_of(frame: int) -> np.ndarray[Any, Any]:
    return np.random.default_rng(frame).poisson(20, SHAPE).astype(np.uint16)


def chunk_of(frame: int, codec: str = "bslz4") -> bytes:
    counts = counts_of(frame)
    return as_chunk(counts.ravel(), "", SHAPE, counts.dtype, codec, check=True)


def add(recording: ScanRecording, first: int, count: int) -> None:
    frames = [RecordedFrame(chunk_of(one), one, 1.7e9 + one) for one in range(first, first + count)]
    recording.append(frames, [(one * 1e-6, -one * 1e-6) for one in range(first, first + count)])


def check_frames(path: Path, count: int) -> None:
    with open_scan(path, GEOMETRY) as scan:
        assert len(scan) == count
        for one in range(count):
            np.testing.assert_array_equal(scan.counts[one], counts_of(one))
        np.testing.assert_array_equal(scan.frame_ids, np.arange(count))
        np.testing.assert_allclose(scan.positions_m[:, 0], np.arange(count) * 1e-6)
        np.testing.assert_allclose(scan.times, 1.7e9 + np.arange(count))


def new(path: Path, **more: Any) -> ScanRecording:
    return ScanRecording(path, SHAPE, np.dtype(np.uint16), scan_id="s", **more)


def test_a_recording_appears_whole_under_its_name(tmp_path: Path) -> None:
    recording = new(tmp_path / "scan.h5", columns=("Ring",))
    nan = float("nan")
    frames = [RecordedFrame(chunk_of(one), one, 1.7e9 + one, (one * 2.0,)) for one in range(5)]
    recording.append(frames[:3], [(0.0, -0.0), (nan, nan), (2e-6, -2e-6)])
    recording.commit()
    recording.append(frames[3:], [(nan, nan), (4e-6, -4e-6)])
    recording.place(1, 1e-6, -1e-6)
    recording.place(3, 3e-6, -3e-6)
    assert not (tmp_path / "scan.h5").exists()
    recording.set_geometry(energy_ev=9e3, distance_m=2.0, detector_pixel_m=5e-5)
    assert recording.finish({"temperature": 20}) == tmp_path / "scan.h5"
    assert list(tmp_path.iterdir()) == [tmp_path / "scan.h5"]
    check_frames(tmp_path / "scan.h5", 5)
    with open_scan(tmp_path / "scan.h5") as scan:
        assert (scan.scan_id, scan.energy_ev, scan.distance_m, scan.detector_pixel_m) == ("s", 9e3, 2.0, 5e-5)
        assert scan.metadata["temperature"] == 20
        np.testing.assert_array_equal(scan.metadata["attributes"]["Ring"], [0, 2, 4, 6, 8])
    with pytest.raises(ScanFileError, match="closed"):
        recording.commit()


def test_nothing_is_written_over(tmp_path: Path) -> None:
    (tmp_path / "a.h5").touch()
    (tmp_path / "b.h5.partial").write_bytes(b"what was saved")
    with pytest.raises(ScanFileError, match=r"a\.h5 exists already"):
        new(tmp_path / "a.h5")
    with pytest.raises(ScanFileError, match="--recover"):
        new(tmp_path / "b.h5")
    assert (tmp_path / "b.h5.partial").read_bytes() == b"what was saved"


@pytest.mark.slow
def test_a_crash_at_any_write_leaves_the_last_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every change of the disk, those of a commit included, is a place to die."""
    crashes: list[tuple[tuple[int, ...], dict[str, bytes]]] = []
    allowed: tuple[int, ...] = ()

    def crash(**instead: bytes) -> None:
        if allowed:
            files = {path.name: path.read_bytes() for path in tmp_path.glob("scan.h5.partial*")}
            crashes.append((allowed, {**files, **instead}))

    class Spied(CommittedFile):
        def write(self, data: Any) -> int:
            crash()
            return super().write(data)

        def _write_journal(self) -> None:
            crash()
            super()._write_journal()
            whole = journal_of(tmp_path / "scan.h5.partial").read_bytes()
            for part in (0, 5, len(whole) - 1):
                crash(**{"scan.h5.partial.journal": whole[:part]})

    apply = hdf5_commit._apply

    def apply_slowly(descriptor: int, changes: list[tuple[int, bytes]]) -> None:
        for change in changes:
            crash()
            apply(descriptor, [change])
        crash()

    monkeypatch.setattr(scan_recording, "CommittedFile", Spied)
    recording = new(tmp_path / "scan.h5")
    monkeypatch.setattr(hdf5_commit, "_apply", apply_slowly)
    for first in range(0, 16, 4):
        allowed = (first,)
        add(recording, first, 4)
        allowed = (first, first + 4)
        recording.commit()
    allowed = (16,)
    recording.close({"a": "b" * 500})
    monkeypatch.setattr(hdf5_commit, "_apply", apply)
    torn = sum("scan.h5.partial.journal" in files for _, files in crashes)
    assert torn > 20
    assert len(crashes) - torn > 20
    seen = set()
    for number, (frames, files) in enumerate(crashes):
        place = tmp_path / str(number)
        place.mkdir()
        for name, data in files.items():
            (place / name).write_bytes(data)
        path, found = recover(place / "scan.h5.partial")
        assert found in frames
        if found:
            check_frames(path, found)
        seen.add(found)
    assert seen == {0, 4, 8, 12, 16}


@pytest.mark.slow
@pytest.mark.parametrize("codec", sorted(FILE_CODECS))
@pytest.mark.parametrize("sent", [codec for codec in CODECS if codec not in LOSSY])
@settings(max_examples=5, deadline=None)
@given(
    frame=st.sampled_from(["u1", "u2", "i4", "u4", "u8"]).flatmap(
        lambda dtype: hnp.arrays(dtype, st.tuples(st.integers(1, 40), st.integers(1, 70)))
    )
)
def test_every_stream_codec_goes_into_every_file_codec(
    tmp_path_factory: pytest.TempPathFactory, sent: str, codec: str, frame: np.ndarray[Any, Any]
) -> None:
    payload = np.frombuffer(compress(frame, sent), np.uint8) if sent else frame.ravel()
    chunk = as_chunk(payload, sent, frame.shape, frame.dtype, codec, check=True)
    path = tmp_path_factory.mktemp("one") / "scan.h5"
    recording = ScanRecording(path, frame.shape, frame.dtype, codec=codec)
    recording.append([RecordedFrame(chunk, 0, 0.0)], [(0.0, 0.0)])
    recording.finish()
    with h5py.File(path) as file:
        np.testing.assert_array_equal(file["entry/data/data"][0], frame)


@pytest.mark.parametrize("codec", ["lz4", "bslz4", "lz4hdf5", "blosc", "zlib"])
def test_what_is_compressed_already_is_kept_byte_for_byte(codec: str) -> None:
    counts = counts_of(1)
    payload = compress(counts, codec)
    kept = as_chunk(np.frombuffer(payload, np.uint8), codec, SHAPE, counts.dtype, file_codec(codec), check=False)
    assert kept.endswith(payload)
    damaged = np.frombuffer(payload[: len(payload) // 2], np.uint8)
    with pytest.raises(FrameError):
        as_chunk(damaged, codec, SHAPE, counts.dtype, file_codec(codec), check=True)


def test_a_bslz4_payload_with_the_filters_header_is_kept_too(tmp_path: Path) -> None:
    counts = counts_of(2)
    with_header = chunk_of(2)
    kept = as_chunk(np.frombuffer(with_header, np.uint8), "bslz4", SHAPE, counts.dtype, "bslz4", check=True)
    assert kept == with_header


def in_child(script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    code = "import sys; sys.path.insert(0, sys.argv[1])\nfrom test_record_file import *\nfrom pathlib import Path\n"
    words = [sys.executable, "-c", code + textwrap.dedent(script), str(Path(__file__).parent), *arguments]
    return subprocess.run(words, capture_output=True, text=True, timeout=100, check=False)


@pytest.mark.slow
def test_a_full_disk_leaves_what_was_committed(tmp_path: Path) -> None:
    """A file-size limit stands for the full disk: the write fails in the same place."""
    script = """
        import resource
        resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
        recording = new(Path(sys.argv[2]))
        try:
            for first in range(0, 100_000, 4):
                add(recording, first, 4)
                if first % 8 == 0:
                    recording.commit()
        except ScanFileError as error:
            print(recording.committed, error)
    """
    done = in_child(script, str(tmp_path / "scan.h5"))
    assert done.returncode == 0, done
    frames, _, text = done.stdout.partition(" ")
    assert "cannot be written after" in text, done
    assert "free space" in text
    assert int(frames) > 20
    assert [path.name for path in tmp_path.iterdir()] == ["scan.h5.partial"]
    check_frames(tmp_path / "scan.h5.partial", int(frames))
    assert recover(tmp_path / "scan.h5.partial") == (tmp_path / "scan.h5", int(frames))
    check_frames(tmp_path / "scan.h5", int(frames))


def test_a_living_recording_is_left_alone(tmp_path: Path) -> None:
    recording = new(tmp_path / "scan.h5")
    add(recording, 0, 3)
    recording.commit()
    with pytest.raises(ScanFileError, match="still being written"):
        recover(recording.partial)
    recording.abandon()
    assert recover(recording.partial)[1] == 3


@pytest.mark.parametrize("name", ["none.h5.partial", "scan.h5"])
def test_what_cannot_be_recovered_is_named(tmp_path: Path, name: str) -> None:
    (tmp_path / "scan.h5").touch()
    with pytest.raises(ScanFileError, match="not a partial recording"):
        recover(tmp_path / name)
    (tmp_path / "scan.h5.partial").touch()
    with pytest.raises(ScanFileError, match=r"scan\.h5 exists already"):
        recover(tmp_path / "scan.h5.partial")
    with h5py.File(tmp_path / "other.h5.partial", "w") as file:
        file["entry/data/data"] = np.zeros((2, 3, 4))
    with pytest.raises(ScanFileError, match="not a recording"):
        recover(tmp_path / "other.h5.partial")


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.lists(st.tuples(st.integers(0, 300), st.binary(min_size=1, max_size=80)), max_size=6), min_size=1, max_size=6
    )
)
def test_a_committed_file_reads_as_written_and_changes_by_commits(
    tmp_path_factory: pytest.TempPathFactory, rounds: list[list[tuple[int, bytes]]]
) -> None:
    path = tmp_path_factory.mktemp("commit") / "file"
    wanted, committed = bytearray(), b""
    with CommittedFile(path) as file:
        for writes in rounds:
            for place, data in writes:
                wanted.extend(bytes(max(0, place + len(data) - len(wanted))))
                wanted[place : place + len(data)] = data
                file.seek(place)
                file.write(data)
                got = bytearray(len(wanted))
                file.seek(0)
                file.readinto(got)
                assert got == wanted
                assert path.read_bytes()[: len(committed)] == committed
            file.commit()
            committed = bytes(wanted)
            assert path.read_bytes() == committed


def test_names_of_files(tmp_path: Path) -> None:
    names = FileNames(str(tmp_path / "{scan}_{number:03d}.h5"))
    assert names.several
    assert names.path("s1", 7) == tmp_path / "s1_007.h5"
    assert names.path("../a/b c", 1).parent == tmp_path
    assert names.path("", 1).name == "unnamed_001.h5"
    (tmp_path / "s1_001.h5").touch()
    (tmp_path / "s1_001-2.h5.partial").touch()
    assert names.path("s1", 1).name == "s1_001-3.h5"
    assert names.latest("s1").name == "s1_001-2.h5"
    assert not FileNames("a.h5").several
    for wrong in ("{other}.h5", "{scan", "{0}.h5"):
        with pytest.raises(ConfigError, match="not a file name"):
            FileNames(wrong)
