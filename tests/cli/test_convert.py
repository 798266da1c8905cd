"""`ptychostream convert`: a bare 4-D array with its raster, step and rotation becomes a scan file."""

from __future__ import annotations

import argparse
import math
from pathlib import Path

import numpy as np
import pytest

from ptychostream.cli.main import main
from ptychostream.cli.parts import length_m
from ptychostream.scans.scan_files import open_scan

ROWS, COLUMNS, SIZE = 3, 5, 16
GIVEN = ("--raster", "3", "5", "--step", "2nm", "10Å", "--kv", "300", "--mrad-per-pixel", "0.5")


@pytest.fixture
def array(tmp_path: Path) -> Path:
    np.save(
        tmp_path / "stem.npy", np.arange(ROWS * COLUMNS * SIZE**2, dtype=np.uint16).reshape(ROWS, COLUMNS, SIZE, SIZE)
    )
    return tmp_path / "stem.npy"


@pytest.mark.slow
def test_an_array_becomes_a_scan_file(array: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "scan.h5"
    assert main(["convert", str(array), str(output), *GIVEN, "--rotation", "30"]) == 0
    told = capsys.readouterr().out
    assert "15 frames of stem" in told and "300 kV electrons, object pixel 2.461 Å" in told
    with open_scan(output) as scan:  # it says all of it now
        assert (scan.radiation, scan.energy_ev) == ("electron", 300e3)
        np.testing.assert_array_equal(scan.counts[7], np.load(array)[1, 2])
        along, down = scan.positions_m[1] - scan.positions_m[0], scan.positions_m[COLUMNS] - scan.positions_m[0]
    angle = math.radians(30)
    np.testing.assert_allclose(along, 1e-9 * np.array([math.cos(angle), math.sin(angle)]), atol=1e-15)
    np.testing.assert_allclose(down, 2e-9 * np.array([-math.sin(angle), math.cos(angle)]), atol=1e-15)


@pytest.mark.slow
def test_a_raster_of_another_size_is_refused(array: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["convert", str(array), str(tmp_path / "scan.h5"), "--raster", "4", "5", *GIVEN[3:]]
    assert main(words) != 0
    assert not (tmp_path / "scan.h5").exists()
    assert "4" in capsys.readouterr().err


def test_a_file_is_not_replaced_by_itself(array: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["convert", str(array), str(array), *GIVEN]) != 0
    assert np.load(array).shape == (ROWS, COLUMNS, SIZE, SIZE)
    assert "by itself" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "metres"), [("1e-8", 1e-8), ("8nm", 8e-9), ("4.65 Å", 4.65e-10), ("-1.5e1um", -1.5e-5)]
)
def test_a_length_with_its_unit(text: str, metres: float) -> None:
    assert length_m(text) == pytest.approx(metres)


@pytest.mark.parametrize("text", ["8 parsec", "8kV", "nm", "nan", ""])
def test_what_is_no_length(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError):
        length_m(text)
