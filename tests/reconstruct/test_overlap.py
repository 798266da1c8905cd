"""The overlap of the illumination: none where patches do not touch, and then no labels."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from reconstruct_case import make_scan
from training_scans import small_scan

from ptychostream.cli.main import main
from ptychostream.reconstruct.overlap import in_words, overlap
from ptychostream.reconstruct.soundness import SoundnessLimits, unsound
from ptychostream.scans.reconstruction_file import read_reconstruction
from ptychostream.scans.scan import Reconstruction
from ptychostream.scans.scan_writer import write_scan

_, TRUTH = small_scan()
RADIUS, PIXEL_M = 10, 1e-8


def raster(step_px: float, side: int = 8) -> Reconstruction:
    """A round beam of 20 pixels on a square raster."""
    y, x = np.indices((64, 64)) - 32
    disk = (x**2 + y**2 <= RADIUS**2).astype(np.complex64)[None]
    places = np.stack(np.meshgrid(np.arange(side), np.arange(side)), -1).reshape(-1, 2) * step_px * PIXEL_M
    return replace(TRUTH, probe=disk, pixel_m=PIXEL_M, positions_m=places)


def test_it_falls_from_one_to_none() -> None:
    shares = [overlap(raster(step)) for step in (2, 10, 15, 18, 20, 24, 70)]
    assert shares[0] == shares[1] == 1
    assert all(a >= b for a, b in itertools.pairwise(shares))
    assert 0.4 < shares[2] < 0.8
    assert shares[4] < 0.03
    assert shares[-2:] == [0, 0]


def test_more_modes_and_many_positions() -> None:
    one = raster(15)
    two = replace(one, probe=np.concatenate([one.probe, 0.5 * one.probe]))
    assert overlap(two) == pytest.approx(overlap(one), abs=1e-3)
    assert overlap(raster(15, side=30)) == pytest.approx(overlap(one), abs=0.15)
    assert overlap(replace(one, positions_m=one.positions_m[:1])) == 0
    assert overlap(replace(one, probe=0 * one.probe)) == 0


def test_no_labels_without_overlap() -> None:
    good = replace(TRUTH, errors=np.array([0.02, 0.01]))
    assert unsound(good, SoundnessLimits()) == ""
    apart = replace(good, positions_m=20 * np.array(good.positions_m))
    reason = unsound(apart, SoundnessLimits())
    assert "overlap by 0%" in reason
    assert "near-field" in reason
    assert unsound(apart, SoundnessLimits(overlap=0)) == ""


def test_in_words() -> None:
    assert in_words(0.9) == ""
    assert "smaller steps" in in_words(0.4)
    assert "near-field" not in in_words(0.4)
    assert "near-field" in in_words(0.05)


@pytest.mark.slow
def test_patches_that_do_not_touch_are_named_whatever_their_r_factor(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As near-field data that are read as far-field data: the object pixel is far too small for the steps."""
    scan, _ = small_scan()
    few = replace(
        scan,
        counts=scan.counts[:12],
        positions_m=30 * np.asarray(scan.positions_m[:12]),
        frame_ids=np.arange(12),
    )
    write_scan(tmp_path / "scan.h5", few)
    words = ["reconstruct", str(tmp_path / "scan.h5"), "-o", str(tmp_path / "r.h5"), "--iterations", "6"]
    assert main([*words, "--engine", "epie"]) == 0
    assert "near-field" in " ".join(capsys.readouterr().out.split())
    assert main([*words, "--engine", "epie", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["overlap"] < 0.01
    assert told["r_factor"] < 0.1  # it says nothing
    assert "near-field" in unsound(read_reconstruction(tmp_path / "r.h5"), SoundnessLimits())
    words = ["train", str(tmp_path / "scan.h5"), "--reconstruction", str(tmp_path / "r.h5")]
    assert main([*words, "-o", str(tmp_path / "m.onnx")]) == 2
    assert "it makes no labels" in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "m.onnx").exists()


@pytest.mark.slow
def test_the_resolution_is_unknown_where_half_of_the_frames_hardly_overlap(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for step, known in ((5, True), (26, False)):
        scan, _, _ = make_scan(side=6, step=step)
        write_scan(tmp_path / "scan.h5", scan)
        words = [
            "reconstruct",
            str(tmp_path / "scan.h5"),
            "-o",
            str(tmp_path / "made.h5"),
            "--iterations",
            "8",
            "--frc",
        ]
        assert main([*words, "--json"]) == 0
        found = json.loads(capsys.readouterr().out)["frc"]
        assert (found is not None and found["resolution_m"] > 0) if known else found is None
        assert main(words) == 0
        assert ("resolution unknown" in capsys.readouterr().out) != known
