"""What the commands open is opened in a child first."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from file_commands import COMMANDS, run_command
from layout_samples import patterns, write
from scan_samples import FRAMES, a_file, crashing, end_of_opening

from ptychostream.errors import FileMissingError, ScanFileError
from ptychostream.scans import scan_probe
from ptychostream.scans.scan_counts import LazyCounts
from ptychostream.scans.scan_files import ScanOptions
from ptychostream.scans.scan_probe import open_probed, probe

pytestmark = pytest.mark.server

TIMEOUT_S = 60.0


def test_a_sound_file_is_opened(tmp_path: Path) -> None:
    with open_probed(a_file(tmp_path), ScanOptions(energy_ev=9e3)) as scan:
        assert (len(scan), scan.energy_ev) == (FRAMES, 9e3)


def test_what_the_readers_say_is_said(tmp_path: Path) -> None:
    with pytest.raises(FileMissingError), open_probed(tmp_path / "none.h5"):
        pass
    (tmp_path / "text.h5").write_text("no scan")
    with pytest.raises(ScanFileError, match="neither HDF5 nor npz"), open_probed(tmp_path / "text.h5"):
        pass


def test_the_child_reads_the_parts_that_are_meant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its frames come from the array that is named, whatever the file says of the geometry."""
    path = write(
        tmp_path / "a.h5", first=patterns(), second=patterns()[:, :4], PositionX=range(12), PositionY=range(12)
    )
    asked: list[list[str]] = []
    monkeypatch.setattr(scan_probe, "read_apart", lambda _module, path, words, *_: asked.append([path, *words]) or b"")
    probe(path, options=ScanOptions(data="second", pick=((0, 1),)))
    assert asked[0][0] == str(path)
    seen: list[tuple[int, ...]] = []
    monkeypatch.setattr(LazyCounts, "__getitem__", lambda self, key: seen.append((*self.shape, key)))
    scan_probe.main(str(path), json.dumps({"data": "second", "x_name": "PositionX"}))
    assert seen == [(12, 4, 8, 0), (12, 4, 8, 6), (12, 4, 8, -1)]


def test_a_file_that_never_comes_back(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "scan.h5")
    with pytest.raises(ScanFileError, match=r"reading it was not done within 0\.5 s") as caught:
        probe(tmp_path / "scan.h5", 0.5)
    assert caught.value.where == str(tmp_path / "scan.h5")


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS)
def test_the_commands_end_with_an_error(tmp_path: Path, command: str) -> None:
    path = crashing(tmp_path)
    ran = run_command(command, path, tmp_path, TIMEOUT_S)
    assert ran.returncode == 2
    assert ("reading it crashed (SIGSEGV)" in ran.stderr) == (end_of_opening(path) < 0)
    assert str(path) in ran.stderr
