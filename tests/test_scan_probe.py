"""What the commands open is opened in a child first."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from test_collect import FRAMES, a_file
from test_collect_apart import crashing, end_of_opening
from tiny_model import write_tiny

from ptychostream.errors import FileMissingError, ScanFileError
from ptychostream.reconstruction_file import write_reconstruction
from ptychostream.scan_files import ScanOptions
from ptychostream.scan_probe import open_probed, probe
from ptychostream.sim.diffraction import Simulation, simulate_scan

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


def test_a_file_that_never_comes_back(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "scan.h5")
    with pytest.raises(ScanFileError, match="not read within 0 s") as caught:
        probe(tmp_path / "scan.h5", 0.5)
    assert caught.value.where == str(tmp_path / "scan.h5")


@pytest.mark.parametrize("command", ["reconstruct", "train", "infer", "replay"])
def test_the_commands_end_with_an_error(tmp_path: Path, command: str) -> None:
    path, model, made = crashing(tmp_path), tmp_path / "tiny.onnx", tmp_path / "made.h5"
    write_tiny(model)
    write_reconstruction(made, simulate_scan(Simulation(frames=4))[1])
    words = {
        "reconstruct": [path, "--output", tmp_path / "out.h5"],
        "train": [path, "--reconstruction", made, "--output", tmp_path / "out.onnx"],
        "infer": [path, model, "--output", tmp_path / "out.h5"],
        "replay": [path],
    }[command]
    ran = subprocess.run(
        [sys.executable, "-m", "ptychostream", command, *map(str, words)],
        capture_output=True, text=True, timeout=TIMEOUT_S, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert ran.returncode == 2
    assert ("crashes HDF5 (SIGSEGV)" in ran.stderr) == (end_of_opening(path) < 0)
    assert str(path) in ran.stderr
